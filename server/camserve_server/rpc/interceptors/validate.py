"""Checks every request against the rules in the protos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import protovalidate
from google.protobuf.message import Message

from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.call import Call, Proceed

_validator = protovalidate.Validator()
_RANGE_RULES = ("int32.", "int64.", "double.")


async def validate(call: Call, proceed: Proceed) -> None:
    """Refuses a request that breaks a rule; of a client stream, the first message is checked."""
    if call.method.client_streaming:
        call.request = _first_checked(call.request)
    else:
        check(call.request)
    await proceed()


def check(message: Message) -> None:
    """Raises ApiError(PARAM_OUT_OF_RANGE) for a number outside its range, PARAM_INVALID for any other breach."""
    violations = _validator.collect_violations(message, fail_fast=True)
    if not violations:
        return
    violation = violations[0].proto
    path = violation.field.elements if violation.field else ()
    field = ".".join(f"{element.field_name}{_position(element)}" for element in path)
    out_of_range = violation.rule_id.startswith(_RANGE_RULES)
    reason = Reason.PARAM_OUT_OF_RANGE if out_of_range else Reason.PARAM_INVALID
    # The protos say it, so it holds nothing that the caller sent. Of a list, empty is what was not asked for.
    raise ApiError(reason, field=field, rule=violation.message.replace("[, ", "["))


def _position(element: Any) -> str:
    at = element.subscript
    return f"[{at.value}]" if at and at.field == "index" else ""


async def _first_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    first = True
    async for request in requests:
        if first:
            check(request)
            first = False
        yield request
