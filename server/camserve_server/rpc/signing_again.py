"""Answers that are given again, with their links signed afresh."""

from __future__ import annotations

from urllib.parse import urlsplit

from google.protobuf.message import Message

from camserve.v1 import inference_pb2, uploads_pb2
from camserve_server.core.links import Links
from camserve_server.core.uploads import Presigning, UploadLink


class SigningAgain:
    """Replaces the signed links in messages."""

    def __init__(self, links: Links, uploads: Presigning) -> None:
        self._links = links
        self._uploads = uploads

    def __call__(self, tenant: str, message: Message) -> None:
        """Signs the links in a message again, if it has any."""
        if isinstance(message, inference_pb2.InferResponse) and message.heatmap.HasField("url"):
            link = self._links.sign(tenant, urlsplit(message.heatmap.url).path.rpartition("/")[2])
            message.heatmap.url = link.url
            message.heatmap.expires_at.FromSeconds(int(link.expires_at))
        if isinstance(message, uploads_pb2.PresignUploadResponse):
            upload_link = self._uploads.again(
                tenant, UploadLink(message.storage_id, message.upload_url, 0.0, message.headers)
            )
            message.upload_url = upload_link.url
            message.expires_at.FromSeconds(int(upload_link.expires_at))
