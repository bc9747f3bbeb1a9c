"""The tus protocol for resumable uploads, version 1.0 (tus.io/protocols/resumable-upload): its headers, both ways."""

from __future__ import annotations

import base64
from email.utils import formatdate

from camserve.v1 import uploads_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.resumable import Progress
from camserve_server.rpc.call import Call, Proceed
from camserve_server.rpc.options import one_md5

VERSION = "1.0.0"
_EXTENSIONS = "creation,expiration,termination"
_LONGEST_METADATA = 2048


async def tus(call: Call, proceed: Proceed) -> None:
    """Answers who speaks the protocol in it, and makes the headers that begin an upload fields of the message."""
    spoken = call.metadata.get("tus-resumable")
    if spoken is not None:
        if spoken != VERSION:
            raise ApiError(Reason.UPLOAD_PROTOCOL_UNSUPPORTED)
        call.headers["tus-resumable"] = VERSION
    if isinstance(call.request, pb.StartUploadRequest):
        _fill(call, call.request)
    await proceed()


def offset(call: Call, first: pb.AppendUploadRequest) -> int:
    """Returns where the bytes of a call begin; raises ApiError(PARAM_INVALID) when it does not say."""
    if first.HasField("offset"):
        return first.offset
    told = _count(call.metadata.get("upload-offset"))
    if told is None:
        raise ApiError(Reason.PARAM_INVALID, "The header Upload-Offset must say where the bytes begin.")
    return told


def metadata(text: str) -> str:
    """Returns what a caller wants to hear again of its upload; raises ApiError(PARAM_INVALID) for what is no header."""
    if len(text) > _LONGEST_METADATA or not text.isprintable() or not text.isascii():
        raise ApiError(Reason.PARAM_INVALID, f"Upload-Metadata takes up to {_LONGEST_METADATA} ASCII characters.")
    return text


def answer(call: Call, progress: Progress) -> None:
    """Says in headers how much has come."""
    call.headers |= {
        "upload-offset": str(progress.offset),
        "upload-length": str(progress.size_bytes),
        "upload-expires": formatdate(progress.expires_ms / 1000, usegmt=True),
        "cache-control": "no-store",
    }
    if progress.tus_metadata:
        call.headers["upload-metadata"] = progress.tus_metadata


def protocol(call: Call, limit_bytes: int) -> None:
    """Says in headers what is spoken."""
    call.headers |= {
        "tus-resumable": VERSION,
        "tus-version": VERSION,
        "tus-extension": _EXTENSIONS,
        "tus-max-size": str(limit_bytes),
    }


def _fill(call: Call, request: pb.StartUploadRequest) -> None:
    """Sets what the headers say and the message does not, so that rules and fingerprints count it too."""
    if "upload-length" in call.metadata:
        length = _count(call.metadata["upload-length"])
        if length is None or (request.HasField("size_bytes") and request.size_bytes != length):
            raise ApiError(Reason.PARAM_INVALID, "The header Upload-Length is no count, or another than size_bytes.")
        request.size_bytes = length
    if "upload-metadata" in call.metadata:
        request.metadata = metadata(call.metadata["upload-metadata"])
    told = _pairs(request.metadata)
    if "filetype" in told and not request.HasField("media_type"):
        request.media_type = told["filetype"]
    if "filename" in told and not request.HasField("file_name"):
        request.file_name = told["filename"]
    if md5 := one_md5(request.content_md5, call.metadata.get("content-md5")):
        request.content_md5 = md5


def _pairs(text: str) -> dict[str, str]:
    """Reads keys and base64 values; raises ApiError(PARAM_INVALID) for a value of those we use that is none."""
    pairs = {}
    for pair in filter(None, text.split(",")):
        key, _, value = pair.strip().partition(" ")
        if key in ("filetype", "filename"):
            try:
                pairs[key] = base64.b64decode(value, validate=True).decode()
            except ValueError:
                raise ApiError(Reason.PARAM_INVALID, "Upload-Metadata has a value that is not base64.") from None
    return {key: value for key, value in pairs.items() if value}


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
