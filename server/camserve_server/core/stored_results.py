"""Outcomes of images as JSON, for results that outlive the call that asked for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.heatmaps import INLINE_LIMIT_BYTES
from camserve_server.core.infer_options import HeatmapOptions, InferOptions
from camserve_server.core.infer_result import BatchOutcome, ClassScore, Heatmap, InferResult, Timings
from camserve_server.core.links import Links

# About what a class adds to its id and label in the JSON that callers get.
_CLASS_FRAME_BYTES = 40
_NO_WORKER_SURVIVED = "No attempt to classify the image ended."


def encode_options(options: InferOptions) -> dict[str, Any]:
    """Returns the options as JSON can carry them."""
    return asdict(options) | {"md5": options.md5.hex() if options.md5 else None}


def decode_options(fields: dict[str, Any]) -> InferOptions:
    """Returns what `encode_options` made JSON of."""
    return InferOptions(
        **fields
        | {
            "heatmap": _options(fields["heatmap"]) if fields["heatmap"] else None,
            "md5": bytes.fromhex(fields["md5"]) if fields["md5"] else None,
        }
    )


def encode_result(result: InferResult, *, inline: bool) -> bytes:
    """Returns a result whose heatmap is stored as an object; `inline` says how readers want it."""
    fields: dict[str, Any] = asdict(result)
    fields["classes"] = [(score.id, score.label, score.prob) for score in result.classes]
    if result.heatmap and result.heatmap.link:
        fields["heatmap"] |= {"object_id": result.heatmap.link.object_id, "inline": inline}
        for absent in ("data", "link"):
            del fields["heatmap"][absent]
    return orjson.dumps({"result": fields})


def encode_error(error: ApiError) -> bytes:
    """Returns an error that callers will see."""
    return orjson.dumps({"error": error.fields()})


def stored_error(stored: bytes) -> ApiError:
    """Returns the error of an item without a result, which empty bytes are too: no worker survived it."""
    if not stored:
        return ApiError(Reason.INTERNAL, _NO_WORKER_SURVIVED)
    return ApiError.of(orjson.loads(stored)["error"])


async def decode_outcome(item_id: str, stored: bytes, tenant: str, links: Links) -> tuple[BatchOutcome, int]:
    """Returns an outcome and about how many bytes its JSON takes, its links signed anew.

    Empty bytes are the outcome of an item that no worker survived. Raises ApiError(UPSTREAM_FAILED).
    """
    document = orjson.loads(stored) if stored else {}
    if "result" not in document:
        return BatchOutcome(item_id, error=stored_error(stored)), len(stored)
    fields = document["result"]
    size_bytes = len(stored) + _CLASS_FRAME_BYTES * len(fields["classes"])
    heatmap = None
    if fields["heatmap"]:
        heatmap = await _heatmap(fields["heatmap"], tenant, links)
        size_bytes += len(heatmap.data or b"") * 4 // 3
    parts = {
        "classes": [ClassScore(*score) for score in fields["classes"]],
        "timings": Timings(**fields["timings"]),
        "heatmap": heatmap,
    }
    return BatchOutcome(item_id, result=InferResult(**fields | parts)), size_bytes


async def _heatmap(fields: dict[str, Any], tenant: str, links: Links) -> Heatmap:
    object_id, inline = fields.pop("object_id"), fields.pop("inline")
    data = link = None
    if inline and fields["size_bytes"] <= INLINE_LIMIT_BYTES:
        data = await links.read(tenant, object_id)
    else:
        link = links.sign(tenant, object_id)
    return Heatmap(**fields | {"options": _options(fields["options"]), "data": data, "link": link})


def _options(fields: dict[str, Any]) -> HeatmapOptions:
    return HeatmapOptions(**fields | {"size": tuple(fields["size"]) if fields["size"] else None})
