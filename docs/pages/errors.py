"""The page of every error, from the catalogue and the contract."""

from __future__ import annotations

from itertools import groupby

from camserve_server.base.errors import CATALOGUE, Reason
from docs.openapi.comments import comments
from docs.pages import contract
from docs.pages.text import row

HEAD = """\
# Errors

Every error, whoever makes it, is `{"error": {"type", "code", "message", "status", "details"?, "request_id"}}` over
REST. Over gRPC it is the canonical code with `google.rpc.Status` details: `camserve.v1.ErrorObject`,
`google.rpc.ErrorInfo` and, where trying again helps, `google.rpc.RetryInfo`; errors of the edge itself, and those of
gRPC about a method that there is not, carry code and message only. The request id finds the call in the logs. Details
of `param.invalid` and `param.out_of_range` name the `field`, where the request has it, and, where the protos have one
for it, the `rule` that it breaks; what a caller made up is not said again. JSON that does not fit the request, such as
two sources of one image or broken base64, is `json.malformed`, and so is a query with other names or values: the edge's
transcoder refuses both; on GET and DELETE it is `param.invalid`. `/oauth2/token` answers in the form of RFC 6749
instead, but for what the edge refuses (405, 413, 415).

The SDKs use the same codes and add two: `connection.failed` where no answer came, `answer.invalid` where what answered
is not the service. `client.closed`, which the service only logs, is what they say of a call whose client was closed.
"""


def page() -> str:
    """Returns the page: a section for every status and type, in which codes come in the order of the catalogue."""
    parts = [HEAD]
    for (status, kind), reasons in groupby(sorted(CATALOGUE, key=section), key=section):
        parts.append(f"\n## {status} {kind}\n\n| code | gRPC | when |\n|---|---|---|\n")
        parts += [row(f"`{reason.value}`", CATALOGUE[reason].grpc, _when(reason)) for reason in reasons]
    return "".join(parts)


def section(reason: Reason) -> tuple[int, str]:
    """Returns the status and the type, which head the section that a reason stands in."""
    return CATALOGUE[reason].status, CATALOGUE[reason].type


def _when(reason: Reason) -> str:
    comment = comments()[f"{contract.CATALOGUE}.{reason.value.replace('.', '_', 1)}"]
    return comment.partition(f"{CATALOGUE[reason].grpc}. ")[2]
