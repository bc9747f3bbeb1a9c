"""Messages as REST carries them: route, query, headers and body, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from google.protobuf import json_format
from google.protobuf.message import Message

from camserve_client.errors import ANSWER_INVALID, CamserveError
from camserve_client.gen import methods
from camserve_client.gen.uploads_pb2 import UploadProgress
from camserve_client.method import Method
from camserve_client.transport import Piece

M = TypeVar("M", bound=Message)

RAW = "google.api.HttpBody"
_TUS = {"tus-resumable": "1.0.0"}
_RESUMABLE = (methods.START_UPLOAD, methods.APPEND_UPLOAD, methods.GET_UPLOAD_PROGRESS)

_MISSING = {
    "job_id": ("job.not_found", "There is no such job."),
    "storage_id": ("upload.not_found", "There is no such upload."),
    "webhook_id": ("webhook.not_found", "There is no such webhook."),
}


@dataclass(frozen=True, slots=True)
class Form:
    """One request: `route` begins with a slash, `storage_id` is that of a resumable upload."""

    route: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    storage_id: str = ""


def outgoing(method: Method[Any, Any], request: Message) -> Form:
    """Returns the request that carries a message."""
    fields = _fields(request)
    if method is methods.ISSUE_TOKEN:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return Form(method.route, headers=headers, content=urlencode(fields).encode())
    route = _routed(method, fields)
    if method.has_body:
        content = json.dumps(fields, separators=(",", ":")).encode()
        return Form(route, headers={"content-type": "application/json"}, content=content)
    headers = _TUS if method in _RESUMABLE else {}
    return Form(route, fields, headers, storage_id=getattr(request, "storage_id", ""))


def streamed(method: Method[Any, Any], request: Message, piece: Piece) -> Form:
    """Returns the request whose body is the bytes of an image, and whose options are elsewhere."""
    fields = _fields(request)
    fields.pop("size_bytes", None)
    headers = {"content-type": piece.media_type, "content-length": str(piece.size_bytes)}
    if content_md5 := fields.pop("content_md5", None):
        headers["content-md5"] = content_md5
    if method is methods.APPEND_UPLOAD:
        offset = str(fields.pop("offset", 0))
        headers |= _TUS | {"content-type": "application/offset+octet-stream", "upload-offset": offset}
        storage_id = fields["storage_id"]
        return Form(_routed(method, fields), headers=headers, storage_id=storage_id)
    query = {"request": json.dumps(fields, separators=(",", ":"))} if fields else {}
    return Form(method.route, query, headers)


def parsed(message: M, text: str | bytes) -> M:
    """Fills a message from JSON; raises CamserveError(answer.invalid) for anything else."""
    try:
        json_format.Parse(text, message, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise CamserveError(ANSWER_INVALID, "The answer is not of the expected form.") from error
    return message


def from_headers(message: Message, storage_id: str, headers: Mapping[str, str]) -> None:
    """Fills a message that over REST has no body: how far a resumable upload has come."""
    if isinstance(message, UploadProgress):
        try:
            message.storage_id = storage_id
            message.offset = int(headers["upload-offset"])
            message.size_bytes = int(headers["upload-length"])
            message.expires_at.FromDatetime(parsedate_to_datetime(headers["upload-expires"]))
        except (KeyError, ValueError) as error:
            raise CamserveError(ANSWER_INVALID, "The answer does not say how far the upload has come.") from error


def told(method: Method[Any, Any], error: CamserveError) -> CamserveError:
    """Returns the error as gRPC has it: an id of another form than the service's is no route over REST."""
    named = next((field for field in _MISSING if f"{{{field}}}" in method.route), None)
    if error.code != "route.not_found" or named is None:
        return error
    code, message = _MISSING[named]
    return CamserveError(code, message, status=error.status, request_id=error.request_id)


def _fields(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _routed(method: Method[Any, Any], fields: dict[str, Any]) -> str:
    """Fills the route in, with fields that are then no longer among the others."""
    route = method.route
    for name in [name for name in fields if f"{{{name}}}" in route]:
        route = route.replace(f"{{{name}}}", quote(str(fields.pop(name)), safe=""))
    if "{" in route:
        # An empty id would be another route.
        raise ValueError(f"{method.path.rpartition('/')[2]}: the id is empty")
    return route
