"""The headers of the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from docs.openapi.methods import Described
from docs.openapi.schemas import MD5

Node = dict[str, Any]

_COUNT = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_TUS_VERSION = {"type": "string", "const": "1.0.0"}


def _public(described: Described) -> bool:
    return described.policy.public


def _tus(described: Described) -> bool:
    return described.speaks_tus


def _only(*names: str) -> Callable[[Described], bool]:
    return lambda described: described.name in names


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """A header that callers may send, and with which calls it counts."""

    schema: Node
    description: str
    applies: Callable[[Described], bool]
    example: str | None = None


REQUEST: dict[str, RequestHeader] = {
    "Idempotency-Key": RequestHeader(
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "Makes the call safe to repeat: the same request under the same key within 24 hours has its first answer "
        "again, and nothing runs. 1 to 255 visible ASCII characters of the caller's choice.",
        lambda described: described.takes_keys,
        "order-7",
    ),
    "Content-MD5": RequestHeader(
        {"type": "string", **MD5},
        "Is the MD5 of the image, base64 of 16 bytes; of a multipart body that of the whole body, or of the file. "
        "Another: `image.md5_mismatch`. Takes the place of `Content-Length`, without both of which a raw body is "
        "`upload.length_required`.",
        lambda described: (
            described.name == "StartUpload" or (described.takes_image and described.name != "AppendUpload")
        ),
    ),
    "Prefer": RequestHeader(
        _TEXT,
        "Asks with `respond-async` for a receipt at once (202) instead of the answer later (RFC 7240).",
        lambda described: {200, 202} <= set(described.success),
        "respond-async",
    ),
    "Range": RequestHeader(
        _TEXT,
        "Asks for one range of bytes (RFC 9110 section 14), answered with 206. One that cannot be read, or several, "
        "are not heeded.",
        _only("Download"),
        "bytes=0-99",
    ),
    "Tus-Resumable": RequestHeader(
        {"type": "string"},
        "Names the version of the tus protocol, `1.0.0`. Another one: `upload.protocol_unsupported`.",
        _tus,
        "1.0.0",
    ),
    "Upload-Length": RequestHeader(
        _COUNT, "Counts the bytes of the whole image. The same as `size_bytes`.", _only("StartUpload")
    ),
    "Upload-Metadata": RequestHeader(
        {"type": "string", "maxLength": 2048},
        "Carries pairs of a key and a value in base64, apart by commas. `filetype` and `filename` are checked against "
        "the image; the rest is given back as it came.",
        _only("StartUpload"),
        "filetype aW1hZ2UvcG5n",
    ),
    "Upload-Offset": RequestHeader(
        _COUNT,
        "Says where the bytes begin. The same as `offset`; one of them must be there.",
        _only("AppendUpload"),
    ),
}


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of answers: with which status of which calls it comes, and whether it then always does."""

    schema: Node
    description: str
    comes: Callable[[Described, int], bool]
    always: bool = True


def _after(*statuses: int, names: tuple[str, ...] | None = None) -> Callable[[Described, int], bool]:
    return lambda described, status: status in statuses and (names is None or described.name in names)


def _success_of(*names: str) -> Callable[[Described, int], bool]:
    return lambda described, status: status < 300 and described.name in names


def _makes_something(described: Described, status: int) -> bool:
    made = {"CreateJob", "UploadImage", "StartUpload", "PutObject", "CreateWebhook", "Infer", "InferUpload"}
    return status in (201, 202) and described.name in made


_PAGES = ("GetReferencePage", "GetPlayground", "GetPlaygroundFile")
_PROGRESS = ("StartUpload", "AppendUpload", "GetUploadProgress")

RESPONSE: dict[str, ResponseHeader] = {
    "Request-Id": ResponseHeader(
        _TEXT,
        "Identifies the call, in logs too. Equals `request_id` in a body, but for answers that are given again.",
        lambda *_: True,
    ),
    "X-RateLimit-Limit": ResponseHeader(
        _COUNT,
        "Counts the requests that may come at once after a pause.",
        lambda described, _: not _public(described),
        False,
    ),
    "X-RateLimit-Remaining": ResponseHeader(
        _COUNT, "Counts the requests that may come at once now.", lambda described, _: not _public(described), False
    ),
    "X-RateLimit-Reset": ResponseHeader(
        _COUNT,
        "Counts the seconds until as many as the limit may come again.",
        lambda described, _: not _public(described),
        False,
    ),
    "Idempotency-Replayed": ResponseHeader(
        {"type": "string", "enum": ["true", "false"]},
        "Says whether the answer was given before under the same key.",
        lambda described, status: status < 300 and described.takes_keys,
    ),
    "Location": ResponseHeader(
        {"type": "string", "format": "uri"}, "Is where what was made can be asked after.", _makes_something
    ),
    "Preference-Applied": ResponseHeader(
        {"type": "string", "const": "respond-async"},
        "Says that the call became a job because it was asked for.",
        _after(202, names=("Infer", "InferUpload")),
        False,
    ),
    "Retry-After": ResponseHeader(
        {"type": "integer", "minimum": 1},
        "Counts the seconds after which trying again may help.",
        lambda _, status: status in (409, 429, 502, 503, 504),
        False,
    ),
    "WWW-Authenticate": ResponseHeader(_TEXT, "Names the scheme, and what was wrong with the token.", _after(401)),
    "Accept-Ranges": ResponseHeader(
        {"type": "string", "const": "bytes"}, "Says that ranges may be asked for.", _success_of("Download")
    ),
    "Content-Range": ResponseHeader(_TEXT, "Says which bytes of how many these are.", _after(206)),
    "Content-Disposition": ResponseHeader(_TEXT, "Names a file to save the object as.", _success_of("Download")),
    "Cache-Control": ResponseHeader(
        _TEXT,
        "Says how long the answer may be kept.",
        _success_of(
            "Download",
            "IssueToken",
            "GetJwks",
            "GetOpenApi",
            *_PAGES,
            *_PROGRESS,
            "InferBatch",
            "WatchJob",
        ),
    ),
    "Content-Security-Policy": ResponseHeader(
        _TEXT, "Allows a page what came with it and nothing else.", _success_of(*_PAGES)
    ),
    "Tus-Resumable": ResponseHeader(
        _TUS_VERSION,
        "Names the version of the tus protocol; present when the request names it.",
        lambda described, status: status < 300 and _tus(described),
        False,
    ),
    "Tus-Version": ResponseHeader(
        _TUS_VERSION,
        "Lists the versions of the tus protocol that are spoken.",
        _after(204, 412, names=("GetUploadProtocol",)),
        False,
    ),
    "Tus-Extension": ResponseHeader(
        _TEXT, "Lists the extensions of the tus protocol that are spoken.", _success_of("GetUploadProtocol")
    ),
    "Tus-Max-Size": ResponseHeader(_COUNT, "Counts the bytes of the largest image.", _success_of("GetUploadProtocol")),
    "Upload-Offset": ResponseHeader(_COUNT, "Counts the bytes that have come.", _success_of(*_PROGRESS)),
    "Upload-Length": ResponseHeader(_COUNT, "Counts the bytes of the whole image.", _success_of(*_PROGRESS)),
    "Upload-Expires": ResponseHeader(
        _TEXT, "Says when the upload is removed, unless it is complete by then.", _success_of(*_PROGRESS)
    ),
    "Upload-Metadata": ResponseHeader(_TEXT, "Is what the upload began with.", _success_of(*_PROGRESS), False),
    "Deprecation": ResponseHeader(
        {"type": "string", "pattern": "^@[0-9]+$"},
        "Says since when the route or the model version is deprecated (RFC 9745). Absent unless it is.",
        lambda _, status: status < 300,
        False,
    ),
    "Sunset": ResponseHeader(
        _TEXT, "Says when a deprecated route or model version goes (RFC 8594).", lambda _, status: status < 300, False
    ),
    "Link": ResponseHeader(
        _TEXT, 'Leads to what to do about it, as `rel="deprecation"`.', lambda _, status: status < 300, False
    ),
}


def of(described: Described, status: int) -> dict[str, Node]:
    """Returns the headers of an answer by name, as references."""
    return {
        name: {"$ref": f"#/components/headers/{name}"}
        for name, header in RESPONSE.items()
        if header.comes(described, status)
    }


def components() -> tuple[dict[str, Node], dict[str, Node]]:
    """Returns every header that is sent, as parameters, and every one that is received."""
    sent = {
        name: {
            "name": name,
            "in": "header",
            "description": header.description,
            "schema": header.schema,
            **({"example": header.example} if header.example else {}),
        }
        for name, header in REQUEST.items()
    }
    received = {
        name: {"description": header.description, "required": header.always, "schema": header.schema}
        for name, header in RESPONSE.items()
    }
    return sent, received
