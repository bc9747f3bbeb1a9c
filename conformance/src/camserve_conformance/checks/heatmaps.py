"""Section 4: GradCAMOptions and Heatmap."""

from __future__ import annotations

import ast
import base64
import struct
from datetime import UTC, datetime
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.pictures import HEIGHT, WIDTH
from camserve_conformance.shapes import HEATMAP, expect_shape, moment

section = Section("heatmap", "4. Messages: GradCAMOptions and Heatmap")

_METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam")
_COLORMAPS = ("jet", "viridis", "turbo", "inferno", "gray")
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGE = {"width": 1024, "height": 1024}  # as float32 4 MiB, twice what goes inline


async def _asked(kit: Kit, where: str = "inline", **options: Any) -> tuple[Answer, dict[str, Any]]:
    answer = await kit.infer(grad_cam={"enabled": True, **options}, response={"heatmap": where})
    return answer, dict(answer.need()["heatmap"])


async def _shared(kit: Kit, where: str) -> tuple[Answer, dict[str, Any]]:
    """Returns a heatmap with every default, which checks share."""
    found: tuple[Answer, dict[str, Any]] = await kit.once(f"heatmap {where}", lambda: _asked(kit, where))
    return found


def _png_size(answer: Answer, data: bytes) -> tuple[int, int]:
    answer.expect(data.startswith(_PNG), "the data is no PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _npy(answer: Answer, data: bytes) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Returns the header and the values of an NPY file of float32."""
    answer.expect(data.startswith(b"\x93NUMPY"), "the data is no NPY")
    start = 10 if data[6] == 1 else 12
    (length,) = struct.unpack("<H" if start == 10 else "<I", data[8:start])
    values = data[start + length :]
    header = ast.literal_eval(data[start : start + length].decode("latin-1"))
    return header, struct.unpack(f"<{len(values) // 4}f", values[: len(values) // 4 * 4])


@section.check("A heatmap has its members, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    expect_shape(answer, heatmap, HEATMAP, "heatmap")


@section.check("An inline heatmap has the type of its file.", ways=BOTH)
async def inline_type(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    answer.expect_equal("type", heatmap["type"], "png")


@section.check("`data_b64` of an inline PNG is a PNG of `width` and `height`.", ways=BOTH)
async def inline_png(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    size = _png_size(answer, base64.b64decode(heatmap["data_b64"]))
    answer.expect_equal("the PNG's size", size, (heatmap["width"], heatmap["height"]))


@section.check("The default placement is `url`.", ways=BOTH)
async def default_placement(kit: Kit) -> None:
    answer = await kit.infer(grad_cam={"enabled": True})
    answer.expect_equal("type", answer.need()["heatmap"]["type"], "url")


@section.check("A linked heatmap has `url` and `expires_at` and the same metadata.", ways=BOTH)
async def linked(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "url")
    expect_shape(answer, heatmap, {**HEATMAP, "url": "a string", "expires_at": "an RFC 3339 time in UTC"}, "heatmap")
    answer.expect("data_b64" not in heatmap, "a linked heatmap has data_b64 too")


@section.check("Every link starts with CAMSERVE_PUBLIC_URL.", ways=BOTH)
async def link_prefix(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "url")
    if "/v1/objects/" not in heatmap["url"]:
        raise SkippedError("links to objects lead to a bucket of their own")
    prefix = kit.options.links + "/v1/objects/"
    answer.expect(heatmap["url"].startswith(prefix), f"the link does not start with {prefix}")


@section.check("A link expires, in the future.", ways=BOTH)
async def link_expires(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "url")
    answer.expect(moment(heatmap["expires_at"]) > datetime.now(UTC), f"it ended at {heatmap['expires_at']}")


@section.check("A link hands out the heatmap as its `format` says.", ways=BOTH)
async def link_works(kit: Kit) -> None:
    _, heatmap = await _shared(kit, "url")
    file = await kit.rest.request("GET", heatmap["url"], token=None)
    file.need()
    file.expect_equal("the PNG's size", _png_size(file, file.content), (heatmap["width"], heatmap["height"]))


def _default(member: str, wanted: Any, sentence: str) -> None:
    async def is_default(kit: Kit) -> None:
        answer, heatmap = await _shared(kit, "inline")
        answer.expect_equal(member, heatmap[member], wanted)

    section.add(f"default_{member}", sentence, is_default, ways=BOTH)


_default("format", "png", "`format` defaults to png, and is always present.")
_default("colormap", "jet", "`colormap` defaults to jet.")
_default("overlay", False, "`overlay` defaults to false.")
_default("method", "gradcam", "`method` defaults to gradcam.")
_default("normalization", "0-1", "`normalization` is 0-1.")


@section.check("`layer` defaults to auto, the final convolutional layer, and the answer names it.", ways=BOTH)
async def default_layer(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    answer.expect_equal("layer", heatmap["layer"], (await kit.version())["default_layer"])


@section.check("`target` defaults to the top class.", ways=BOTH)
async def default_target(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    answer.expect_equal("target", heatmap["target"], answer.body["classes"][0]["id"])


@section.check("`resolution` defaults to the image's own size.", ways=BOTH)
async def default_resolution(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    answer.expect_equal("the size", (heatmap["width"], heatmap["height"]), (WIDTH, HEIGHT))


@section.check("`resolution` may be the word input.", ways=BOTH)
async def resolution_word(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, resolution="input")
    answer.expect_equal("the size", (heatmap["width"], heatmap["height"]), (WIDTH, HEIGHT))


@section.check("`resolution` may be a width and a height.", ways=BOTH)
async def resolution_size(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, resolution={"width": 30, "height": 20})
    answer.expect_equal("the size", (heatmap["width"], heatmap["height"]), (30, 20))


@section.check("`raw_min` is not above `raw_max`, and a map that is not constant is not degenerate.", ways=BOTH)
async def raw_range(kit: Kit) -> None:
    answer, heatmap = await _shared(kit, "inline")
    answer.expect(heatmap["raw_min"] <= heatmap["raw_max"], "raw_min is above raw_max")
    is_constant = heatmap["raw_min"] == heatmap["raw_max"]
    answer.expect_equal("degenerate", heatmap["degenerate"], is_constant)


@section.check("A class may be explained by its id.", ways=BOTH)
async def target(kit: Kit) -> None:
    plain = (await kit.infer(classify={"top_k": 2})).need()["classes"]
    if len(plain) < 2:
        raise SkippedError("the model has one class")
    answer, heatmap = await _asked(kit, target=plain[1]["id"])
    answer.expect_equal("target", heatmap["target"], plain[1]["id"])


@section.check("A layer may be named.", ways=BOTH)
async def layer(kit: Kit) -> None:
    name = (await kit.version())["default_layer"]
    answer, heatmap = await _asked(kit, layer=name)
    answer.expect_equal("layer", heatmap["layer"], name)


@section.check("`overlay` draws the map over the image.", ways=BOTH)
async def overlay(kit: Kit) -> None:
    _, plain = await _shared(kit, "inline")
    answer, heatmap = await _asked(kit, overlay=True)
    answer.expect_equal("overlay", heatmap["overlay"], True)
    answer.expect(heatmap["data_b64"] != plain["data_b64"], "the picture is the same as without")


@section.check("`alpha` sets the overlay's opacity.", ways=BOTH)
async def alpha(kit: Kit) -> None:
    answer, faint = await _asked(kit, overlay=True, alpha=0.1)
    _, strong = await _asked(kit, overlay=True, alpha=0.9)
    answer.expect(faint["data_b64"] != strong["data_b64"], "two opacities have the same picture")


def _choice(option: str, value: str) -> None:
    async def is_taken(kit: Kit) -> None:
        answer = await kit.infer(grad_cam={"enabled": True, option: value}, response={"heatmap": "inline"})
        answer.expect(answer.ok, f"{option} {value} answered {answer.status} {answer.code}")
        answer.expect_equal(option, answer.body["heatmap"][option], value)

    name = f"{option}_{value.replace('+', 'p')}"
    section.add(name, f"`{option}` may be {value}.", is_taken, ways=BOTH)


for _value in _METHODS:
    _choice("method", _value)
for _value in _COLORMAPS:
    _choice("colormap", _value)


@section.check("An inline NPY has the type npy.", ways=BOTH)
async def npy_type(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, format="npy")
    answer.expect_equal("type", heatmap["type"], "npy")


@section.check("NPY is float32 (H, W) in C order.", ways=BOTH)
async def npy(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, format="npy", resolution={"width": 30, "height": 20})
    header, _ = _npy(answer, base64.b64decode(heatmap["data_b64"]))
    answer.expect_equal("descr", header["descr"], "<f4")
    answer.expect_equal("shape", header["shape"], (20, 30))
    answer.expect_equal("fortran_order", header["fortran_order"], False)


@section.check("NPY values are 0 to 1.", ways=BOTH)
async def npy_values(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, format="npy", resolution={"width": 20, "height": 15})
    _, values = _npy(answer, base64.b64decode(heatmap["data_b64"]))
    answer.expect(values and min(values) >= 0 and max(values) <= 1, "a value is outside 0 to 1")


@section.check("NPY values are all one where the map is degenerate, and nowhere else.", ways=BOTH)
async def npy_degenerate(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, format="npy", resolution={"width": 24, "height": 18})
    _, values = _npy(answer, base64.b64decode(heatmap["data_b64"]))
    answer.expect_equal("degenerate", heatmap["degenerate"], min(values) == max(values))


@section.check("Beyond 2 MiB of image bytes the type is url whatever was asked.", ways=BOTH)
async def too_large_for_inline(kit: Kit) -> None:
    answer, heatmap = await _asked(kit, format="npy", resolution=_LARGE)
    answer.expect_equal("type", heatmap["type"], "url")
