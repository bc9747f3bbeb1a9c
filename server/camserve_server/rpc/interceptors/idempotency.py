"""Gives a request that comes again under its key the answer that it had."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from google.protobuf import message_factory
from google.protobuf.message import Message

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.idempotency import Idempotency
from camserve_server.rpc.call import Call, Interceptor, Proceed
from camserve_server.rpc.fingerprint import fingerprint
from camserve_server.rpc.signing_again import SigningAgain

_KEY = re.compile(r"[!-~]{1,255}")


def idempotency(keys: Idempotency, sign_again: SigningAgain) -> Interceptor:
    """Returns the link that runs a call under its key; of a client stream, once the servicer has received it."""

    async def once(
        call: Call, key: str, digest: Callable[[], bytes], serve: Callable[[], Awaitable[Message]]
    ) -> Message:
        async def execute(nonce: str) -> bytes:
            call.nonce = nonce
            try:
                return _record(call, await serve())
            except ApiError as error:
                if not _kept(error):
                    raise
                return _error_record(call, error)

        answer, call.replayed = await keys.run(
            call.tenant, call.policy.operation, key, await asyncio.to_thread(digest), execute
        )
        return _answer(call, answer, sign_again)

    async def check(call: Call, proceed: Proceed) -> None:
        key = call.metadata.get("idempotency-key")
        if call.policy.refuses_key and key is not None:
            raise ApiError(Reason.IDEMPOTENCY_KEY_INVALID, "This call takes no idempotency key: use a job.")
        if not call.policy.operation or key is None:
            await proceed()
            return
        if not _KEY.fullmatch(key):
            raise ApiError(Reason.IDEMPOTENCY_KEY_INVALID)
        # What is taken under the key lasts.
        await call.checked()
        if call.method.client_streaming:
            call.once = partial(once, call, key)
            await proceed()
            return

        async def serve() -> Message:
            await proceed()
            message: Message = call.response
            return message

        call.response = await once(call, key, partial(fingerprint, call.request), serve)

    return check


def _kept(error: ApiError) -> bool:
    """Whether an error says something of the image, which would be no other the next time."""
    return error.entry.status == 422 and error.reason.startswith("image.")


def _record(call: Call, message: Message) -> bytes:
    head = {"headers": call.headers, "http_code": call.http_code}
    return orjson.dumps(head) + b"\n" + message.SerializeToString()


def _error_record(call: Call, error: ApiError) -> bytes:
    return orjson.dumps({"error": error.fields(), "request_id": call.request_id}) + b"\n"


def _answer(call: Call, record: bytes, sign_again: SigningAgain) -> Message:
    """Returns the message of a record and makes its headers the call's; raises the error of one that is an error."""
    line, _, body = record.partition(b"\n")
    head: dict[str, Any] = orjson.loads(line)
    if "error" in head:
        call.answer_id = head["request_id"]
        raise ApiError.of(head["error"])
    call.headers, call.http_code = head["headers"], head["http_code"]
    message = message_factory.GetMessageClass(call.method.output_type).FromString(body)
    if call.replayed:
        sign_again(call.tenant, message)
    return message
