"""What a call is about, as the log may say it: ids of ours, and nothing else that a caller wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from google.protobuf.message import Message

_NAMES = ("job_id", "storage_id", "object_id", "webhook_id", "event_id")
# Any other text in these fields is a caller's.
_ID = re.compile(r"(evt|img|job|obj|webhook)_[0-9A-Za-z]{16,40}")
# As many inputs as a job may have: a trail that leaves some out is none.
_MOST_INPUTS = 256


def about(message: object) -> dict[str, str | list[str]]:
    """Returns the ids of what a message is about; of a batch or job, those of the uploads that it uses."""
    if not isinstance(message, Message):
        return {}
    named = {name: getattr(message, name) for name in _NAMES if name in message.DESCRIPTOR.fields_by_name}
    if "image" in message.DESCRIPTOR.fields_by_name:
        named["storage_id"] = next(_used(message), "")
    ids: dict[str, str | list[str]] = {name: value for name, value in named.items() if _ID.fullmatch(value)}
    if "inputs" in message.DESCRIPTOR.fields_by_name:
        inputs = islice(getattr(message, "inputs"), _MOST_INPUTS)  # noqa: B009
        if used := [storage_id for entry in inputs for storage_id in _used(entry) if _ID.fullmatch(storage_id)]:
            ids["storage_ids"] = used
    return ids


def _used(holder: Message) -> Iterator[str]:
    image = getattr(holder, "image")  # noqa: B009
    if "storage_id" in image.DESCRIPTOR.fields_by_name:
        yield image.storage_id
