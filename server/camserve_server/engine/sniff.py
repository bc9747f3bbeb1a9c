"""What a file is, from its bytes alone, and whether that contradicts what the caller declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from camserve_server.base.errors import ApiError, Reason

MEDIA_TYPES: Final = {"jpeg": "image/jpeg", "png": "image/png", "tiff": "image/tiff", "bmp": "image/bmp"}

_ALIASES: Final = {
    "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/pjpeg": "jpeg", "image/jfif": "jpeg", "image/mpo": "jpeg",
    "image/png": "png", "image/x-png": "png", "image/apng": "png", "image/vnd.mozilla.apng": "png",
    "image/tiff": "tiff", "image/tif": "tiff", "image/x-tiff": "tiff", "image/x-tif": "tiff",
    "image/bmp": "bmp", "image/x-bmp": "bmp", "image/x-ms-bmp": "bmp", "image/x-windows-bmp": "bmp",
}  # fmt: skip
_NOTHING_DECLARED: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "image/*", "*/*"})

_EXTENSIONS: Final = {
    "jpg": "jpeg", "jpeg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "pjpeg": "jpeg", "pjp": "jpeg", "mpo": "jpeg",
    "png": "png", "apng": "png", "tif": "tiff", "tiff": "tiff", "btf": "tiff", "bmp": "bmp", "dib": "bmp",
}  # fmt: skip
# Extensions that say plainly "not one of ours"; any other unknown one declares nothing.
_FOREIGN_EXTENSIONS: Final = frozenset(
    [
        "ai",
        "avi",
        "avif",
        "cr2",
        "css",
        "csv",
        "cur",
        "dds",
        "doc",
        "docx",
        "eps",
        "exe",
        "exr",
        "gif",
        "gz",
        "hdr",
        "heic",
        "heif",
        "htm",
        "html",
        "ico",
        "j2k",
        "jp2",
        "jpx",
        "js",
        "json",
        "jxl",
        "jxr",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "pbm",
        "pdf",
        "pgm",
        "pnm",
        "ppm",
        "ps",
        "psd",
        "py",
        "qoi",
        "svg",
        "svgz",
        "tar",
        "tga",
        "txt",
        "wav",
        "webm",
        "webp",
        "xcf",
        "xls",
        "xlsx",
        "xml",
        "zip",
    ]
)

# Signatures at offset 0 of formats that are known and refused; the longest ones that matter come first.
_UNSUPPORTED: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"%PDF-", "pdf"),
    (b"%!PS", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"8BPS", "psd"),
    (b"gimp xcf", "xcf"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"\x00\x00\x02\x00", "cur"),
    (b"icns", "icns"),
    (b"II\xbc\x01", "jxr"),
    (b"IIRO", "raw"),
    (b"IIRS", "raw"),
    (b"IIU\x00", "raw"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"DDS ", "dds"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"qoif", "qoi"),
    (b"farbfeld", "farbfeld"),
    (b"FLIF", "flif"),
    (b"BPG\xfb", "bpg"),
    (b"\x8aMNG\r\n\x1a\n", "mng"),
    (b"\x8bJNG\r\n\x1a\n", "jng"),
    (b"AT&TFORM", "djvu"),
    (b"SIMPLE  =", "fits"),
    (b"/* XPM */", "xpm"),
    (b"\xd7\xcd\xc6\x9a", "wmf"),
    (b"\x59\xa6\x6a\x95", "sun"),
    (b"\x01\xda", "sgi"),
)
_BMP_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_HEAD_BYTES: Final = 4096
# Of all sizes: a first frame of 100 MB, in the usual blocks of 255 bytes, has 400,000.
_MAX_GIF_BLOCKS: Final = 500_000


class Readable(Protocol):
    """Bytes by position."""

    def at(self, offset: int, n_bytes: int) -> bytes:
        """Return up to `n_bytes` from `offset`."""
        ...


@dataclass(frozen=True, slots=True)
class Sniffed:
    """The format found: `kind` is a key of MEDIA_TYPES, or the short name of an unsupported format."""

    kind: str
    animated: bool = False

    @property
    def supported(self) -> bool:
        """Whether a reader exists."""
        return self.kind in MEDIA_TYPES


def sniff(file: Readable) -> Sniffed:
    """Name the format by its signature; raises IMAGE_INVALID_FORMAT when there is none known.

    APNG and multi-page TIFF need a walk through the file and are found by their readers.
    """
    head = file.at(0, _HEAD_BYTES)
    if head.startswith(b"\xff\xd8\xff"):
        return Sniffed("jpeg")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Sniffed("png")
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return Sniffed("raw") if head[8:10] == b"CR" else Sniffed("tiff")
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return Sniffed("bmp")
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return Sniffed("gif", _gif_has_second_frame(file))
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Sniffed("webp", head[12:16] == b"VP8X" and bool(head[20:21]) and bool(head[20] & 0x02))
    if head[4:8] == b"ftyp":
        return Sniffed("avif" if head[8:12] in (b"avif", b"avis") else "heif")
    for signature, kind in _UNSUPPORTED:
        if head.startswith(signature):
            return Sniffed(kind)
    if head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3] in (b" ", b"\t", b"\n", b"\r"):
        return Sniffed("pnm")
    if head[128:132] == b"DICM":
        return Sniffed("dicom")
    if _is_svg(head):
        return Sniffed("svg")
    if b"%PDF-" in head[:1024]:
        return Sniffed("pdf")
    raise ApiError(Reason.IMAGE_INVALID_FORMAT)


def check_declaration(sniffed: Sniffed, media_type: str | None, file_name: str | None) -> None:
    """Raise what a caller gets for this format, or for a declaration that the bytes contradict.

    Raises MEDIA_UNSUPPORTED, MEDIA_MISMATCH or IMAGE_ANIMATED_NOT_SUPPORTED, the bytes deciding first.
    """
    if not sniffed.supported and not sniffed.animated:
        raise ApiError(Reason.MEDIA_UNSUPPORTED)
    if sniffed.supported:
        declared = (media_type or "").partition(";")[0].strip().lower()
        if declared not in _NOTHING_DECLARED and _ALIASES.get(declared) != sniffed.kind:
            raise ApiError(Reason.MEDIA_MISMATCH)
        extension = (file_name or "").rpartition(".")[2].strip().lower() if "." in (file_name or "") else ""
        known = extension in _EXTENSIONS or extension in _FOREIGN_EXTENSIONS
        if known and _EXTENSIONS.get(extension) != sniffed.kind:
            raise ApiError(Reason.MEDIA_MISMATCH)
    if sniffed.animated:
        raise ApiError(Reason.IMAGE_ANIMATED_NOT_SUPPORTED)


def _is_svg(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<svg"):
        return True
    return text.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in text


def _gif_has_second_frame(file: Readable) -> bool:
    """Walk the blocks of a GIF until its second image descriptor, its end, or something odd, such as endless blocks."""
    screen = file.at(0, 13)
    if len(screen) < 13:
        return False
    offset = 13 + (3 << ((screen[10] & 7) + 1) if screen[10] & 0x80 else 0)
    frames = blocks = 0
    while blocks < _MAX_GIF_BLOCKS:
        head = file.at(offset, 10)
        if head[:1] == b"\x2c" and len(head) == 10:
            frames += 1
            if frames == 2:
                return True
            offset += 10 + (3 << ((head[9] & 7) + 1) if head[9] & 0x80 else 0) + 1
        elif head[:1] == b"\x21":
            offset += 2
        else:
            return False
        while blocks < _MAX_GIF_BLOCKS and (size := file.at(offset, 1)):
            blocks += 1
            offset += 1 + size[0]
            if size == b"\x00":
                break
    return False
