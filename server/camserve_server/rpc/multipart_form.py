"""A multipart body, read as it arrives."""

from __future__ import annotations

import multipart

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.form import request_from_fields, request_from_json

_FIELD_LIMIT_BYTES = 64 * 1024
_PARTS_LIMIT = 64


class MultipartForm:
    """A multipart body, read as it arrives: the file's bytes are handed on, fields are kept."""

    def __init__(self, content_type: str) -> None:
        _, parameters = multipart.parse_options_header(content_type)
        boundary = parameters.get("boundary", "")
        # RFC 2046 section 5.1.1 allows 70 characters.
        if not 1 <= len(boundary) <= 200 or not boundary.isascii() or not boundary.isprintable():
            raise ApiError(Reason.PARAM_INVALID, "The multipart body has no usable boundary.")
        self._parser = multipart.PushMultipartParser(
            boundary, max_segment_count=_PARTS_LIMIT, max_header_count=16, max_header_size=8192
        )
        self._part: multipart.MultipartSegment | None = None
        self._text = bytearray()
        self._fields: dict[str, str] = {}
        self._json: str | None = None
        self._seen_image = False
        self.media_type: str | None = None
        self.file_name: str | None = None
        self.content_md5: str | None = None
        self.request: inference_pb2.InferRequest | None = None

    def feed(self, chunk: bytes) -> list[bytearray]:
        """Returns the file's bytes in `chunk`."""
        found = []
        try:
            # An empty chunk would close the parser.
            for event in self._parser.parse(chunk) if chunk else ():
                if isinstance(event, multipart.MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                elif self._part is not None and self._part.name == "image":
                    found.append(event)
                else:
                    self._keep(event)
        except (multipart.MultipartError, UnicodeError):
            raise ApiError(Reason.PARAM_INVALID, "The multipart body is malformed.") from None
        return found

    def finish(self) -> None:
        """Settles what is asked; raises ApiError when the body broke off or holds no image."""
        try:
            self._parser.close()
        except multipart.MultipartError:
            raise ApiError(Reason.PARAM_INVALID, "The multipart body ends before its closing boundary.") from None
        if not self._seen_image:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED, "The form has no file part named `image`.")
        if self._json is not None and self._fields:
            raise ApiError(Reason.PARAM_INVALID, "Options come in `request` or in fields, not in both.")
        if self._json is not None:
            self.request = request_from_json(self._json)
        elif self._fields:
            self.request = request_from_fields(self._fields)

    def _begin(self, part: multipart.MultipartSegment) -> None:
        self._part = part
        self._text.clear()
        if part.name == "image":
            if self._seen_image:
                raise ApiError(Reason.IMAGE_SOURCE_REQUIRED, "The form has several parts named `image`.")
            self._seen_image = True
            self.media_type = part.content_type
            self.file_name = part.filename
            self.content_md5 = part.header("Content-MD5")

    def _keep(self, data: bytearray) -> None:
        if len(self._text) + len(data) > _FIELD_LIMIT_BYTES:
            raise self._unfit(self._part, "A form field is too long.")
        self._text += data

    def _end(self) -> None:
        part, self._part = self._part, None
        if part is None or part.name == "image":
            return
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise self._unfit(part, "A form field is not UTF-8.") from None
        if part.name in self._fields or (part.name == "request" and self._json is not None):
            raise ApiError(Reason.PARAM_INVALID, "A form field is given twice.")
        if part.name == "request":
            self._json = text
        else:
            self._fields[part.name] = text

    @staticmethod
    def _unfit(part: multipart.MultipartSegment | None, of_a_field: str) -> ApiError:
        is_file = part is not None and part.filename
        return ApiError(Reason.PARAM_INVALID, "The file of a form is the part `image`." if is_file else of_a_field)
