"""Shows a picture: in the terminal where that can, in the system's viewer otherwise."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from PIL import Image

_SIDE_CELLS = 40
_KITTY_CHUNK = 4096


def show(picture: Image.Image, path: Path | None, console: Console) -> None:
    """Shows a picture, of which `path` is the file if it was saved."""
    if not console.is_terminal:
        return
    if os.environ.get("KITTY_WINDOW_ID") or os.environ.get("TERM_PROGRAM") == "ghostty":
        console.file.write(_kitty(_png(picture)))
    elif os.environ.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        console.file.write(_iterm(_png(picture)))
    elif console.color_system == "truecolor":
        console.print(blocks(picture, min(_SIDE_CELLS, console.width)))
    elif path is not None:
        typer.launch(str(path))


def blocks(picture: Image.Image, width: int) -> Text:
    """Returns a picture of so many characters across: each is two pixels, one above the other."""
    height = max(2, round(width * picture.height / picture.width) // 2 * 2)
    small = picture.convert("RGB").resize((width, height))
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            above, below = (Color.from_rgb(*small.getpixel((x, row))) for row in (y, y + 1))  # type: ignore[misc]
            text.append("▀", Style(color=above, bgcolor=below))
        text.append("\n")
    return text


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _kitty(data: str) -> str:
    sent = []
    for start in range(0, len(data), _KITTY_CHUNK):
        head = "a=T,f=100," if start == 0 else ""
        more = int(start + _KITTY_CHUNK < len(data))
        sent.append(f"\x1b_G{head}m={more};{data[start : start + _KITTY_CHUNK]}\x1b\\")
    return "".join(sent) + "\n"


def _iterm(data: str) -> str:
    return f"\x1b]1337;File=inline=1;width={_SIDE_CELLS}:{data}\x07\n"
