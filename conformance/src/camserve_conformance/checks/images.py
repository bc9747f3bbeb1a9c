"""Section 7: the images that are taken."""

from __future__ import annotations

from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.pictures import HEIGHT, WIDTH

section = Section("images", "7. Images")

# The least distance of the two most probable classes.
_SURE = 0.1
_ALIKE = {
    "baseline.jpg": ("A baseline JPEG", "image/jpeg"),
    "progressive.jpg": ("A progressive JPEG", "image/jpeg"),
    "cmyk.jpg": ("A CMYK JPEG", "image/jpeg"),
    "several.mpo.jpg": ("An MPO, as a JPEG,", "image/jpeg"),
    "palette.png": ("A PNG with a palette", "image/png"),
    "deep.png": ("A PNG of 16 bits a channel", "image/png"),
    "strips.tif": ("A TIFF of strips", "image/tiff"),
    "tiles.tif": ("A TIFF of tiles", "image/tiff"),
    "deep.tif": ("A TIFF of 16 bits a channel", "image/tiff"),
    "pyramid.tif": ("A TIFF pyramid, by its first page of full resolution,", "image/tiff"),
    "star.bmp": ("A BMP", "image/bmp"),
}
# In fewer colours a picture is another one: that it is taken is all that is promised.
_OTHERWISE = {
    "grey.png": "A grey PNG",
    "bilevel.png": "A PNG of one bit",
    "deep_grey.png": "A grey PNG of 16 bits",
    "float.tif": "A TIFF of floating-point numbers",
    "alpha.png": "A PNG with transparency",
}


def _taken(name: str, what: str) -> None:
    async def is_taken(kit: Kit) -> None:
        answer = await kit.infer(name)
        answer.expect(answer.ok, f"it answered {answer.status} {answer.code}")

    section.add(f"{name.replace('.', '_')}_taken", f"{what} is taken.", is_taken, ways=BOTH)


async def _top(kit: Kit, name: str) -> str:
    """Returns the class of a picture; raises SkippedError where the model wavers between two of them."""
    classes = (await kit.infer(name)).need()["classes"]
    if len(classes) > 1 and classes[0]["prob"] - classes[1]["prob"] < _SURE:
        raise SkippedError(f"the model is not sure of {name}: a loss that nobody sees may change its top class")
    return str(classes[0]["id"])


def _alike(name: str, what: str, media_type: str) -> None:
    async def is_alike(kit: Kit) -> None:
        wanted = await _top(kit, "star.png")
        answer = await kit.infer(name)
        answer.expect_equal("the top class", answer.need()["classes"][0]["id"], wanted)

    async def is_sniffed(kit: Kit) -> None:
        answer = await kit.infer(name)
        answer.expect_equal("media_type", answer.need()["image"]["media_type"], media_type)

    stem = name.replace(".", "_")
    section.add(f"{stem}_alike", f"{what} has the same top class as the same picture in PNG.", is_alike, ways=BOTH)
    section.add(f"{stem}_sniffed", f"{what} is known by its bytes.", is_sniffed)


for _name, (_what, _type) in _ALIKE.items():
    _taken(_name, _what)
    _alike(_name, _what, _type)
for _name, _what in _OTHERWISE.items():
    _taken(_name, _what)


@section.check("16 bits are scaled by value, not truncated: the same class at the top.", ways=BOTH)
async def deep_grey(kit: Kit) -> None:
    wanted = await _top(kit, "grey.png")
    answer = await kit.infer("deep_grey.png")
    answer.expect_equal("the top class", answer.need()["classes"][0]["id"], wanted)


@section.check("Floating-point values are scaled by value: the same class at the top.", ways=BOTH)
async def floating(kit: Kit) -> None:
    wanted = await _top(kit, "grey.png")
    answer = await kit.infer("float.tif")
    answer.expect_equal("the top class", answer.need()["classes"][0]["id"], wanted)


@section.check("EXIF orientation is applied: width and height are those of the upright picture.", ways=BOTH)
async def orientation(kit: Kit) -> None:
    answer = await kit.infer("turned.jpg")
    told = answer.need()["image"]
    answer.expect_equal("the size", (told["width"], told["height"]), (WIDTH, HEIGHT))
