"""Tables that fit: where a terminal is narrow, what matters least gives way, and no short word is split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# `words` break between words and a `time` behind its day, a `name` (of a file, an address) loses its middle, and an
# `id`, which is copied, stays whole for as long as it can.
Kind = Literal["words", "time", "name", "id"]

_EDGES, _BETWEEN = 2, 3
_NAME, _WORD, _LEAST = 16, 24, 10
# Where a word that is longer than its column may end: error codes and paths.
_JOINT = re.compile(r"[^\s._/-]*[._/-]+\s*|[^\s._/-]+\s*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column; of those that may be left out, the one of the highest `spare` goes first."""

    name: str
    kind: Kind = "words"
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that is laid out for the width it is printed at."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table, and a line that names what was left out."""
        shown = _shown(self._measures(), options.max_width)
        widths = _widths(shown, options.max_width)
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(one.column.name for one in shown))
        for one, width in zip(shown, widths, strict=True):
            made.add_column(escape(_wrapped(one.column.name, width)), width=width, no_wrap=True, overflow="crop")
        columns = [one.fitted(width) for one, width in zip(shown, widths, strict=True)]
        for row in zip(*columns, strict=True):
            made.add_row(*map(escape, row))
        yield made
        left = [one.name for place, one in enumerate(self.columns) if self._missing(place, shown)]
        if left:
            yield Text(f"{', '.join(left)}: not shown for want of width; --json has all", style="dim")

    def _measures(self) -> list[_Measured]:
        return [
            _Measured(place, column, [column.name, *(row[place] for row in self.rows)])
            for place, column in enumerate(self.columns)
        ]

    def _missing(self, place: int, shown: Iterable[_Measured]) -> bool:
        said = self.columns[place].name and any(row[place] for row in self.rows)
        return bool(said) and all(one.place != place for one in shown)


class _Measured:
    """A column with what its cells need."""

    def __init__(self, place: int, column: Column, cells: Sequence[str]) -> None:
        self.place = place
        self.column = column
        self.cells = cells[1:]
        self.empty = not any(self.cells)
        self.whole = max(_width(cell) for cell in cells)
        header = max(map(cell_len, column.name.split()), default=0)
        # What a column keeps for as long as others have more, and what it keeps at the end.
        if column.kind == "words":
            word = _longest(word for cell in cells for word in cell.split())
            self.good = min(word, max(_WORD, header))
            self.bad = max(header, min(self.good, _longest(part for cell in cells for part in _JOINT.findall(cell))))
        elif column.kind == "time":
            self.good = self.bad = _longest(part for cell in cells for part in cell.split(" ", 1))
        else:
            self.good = self.whole if column.kind == "id" else min(self.whole, _NAME)
            self.bad = max(header, min(self.good, _LEAST))

    def fitted(self, width: int) -> list[str]:
        """Returns the cells as they are shown in that width."""
        if self.column.kind == "name":
            shown = told_apart(self.cells, width)
            return [shown[cell] for cell in self.cells]
        return [self._fitted(cell, width) for cell in self.cells]

    def _fitted(self, cell: str, width: int) -> str:
        if self.column.kind == "id":
            return "\n".join(chop_cells(cell, width))
        day_first = self.column.kind == "time" and cell_len(cell) > width
        return _wrapped(cell.replace(" ", "\n", 1) if day_first else cell, width)


def told_apart(names: Iterable[str], width: int) -> dict[str, str]:
    """Returns each name as it is shown in that width: shortened, unless another one would look the same."""
    known = list(dict.fromkeys(names))
    shown = {name: shortened(name, width) for name in known}
    for alike in _alike(shown):
        head = _common(alike)
        tail = _common([name[len(head) :][::-1] for name in alike])
        for name in alike:
            shown[name] = _around(name, len(head), len(name) - len(tail), width)
    # What lies too far apart for the width is told whole, in lines.
    for alike in _alike(shown):
        shown |= {name: "\n".join(chop_cells(name, width)) for name in alike}
    return shown


def shortened(text: str, width: int) -> str:
    """Returns a text of that many cells at most, without its middle: names differ at their ends."""
    if cell_len(text) <= width:
        return text
    tail = max(0, width - 1) * 2 // 3
    return f"{_first(text, width - 1 - tail)}…{_last(text, tail)}"


def _around(name: str, start: int, end: int, width: int) -> str:
    """Returns a name of that many cells, if it can be, with what lies between two places and as much else as fits."""
    while start > 0 and not cell_len(name[start : start + 1]):
        start -= 1
    while end < len(name) and not cell_len(name[end]):
        end += 1
    # Rather a whole number than the figures that differ.
    figures = len(name[:start]) - len(name[:start].rstrip("0123456789"))
    more = len(name[end:]) - len(name[end:].lstrip("0123456789"))
    if cell_len(name[start - figures : end + more]) <= width - 2:
        start, end = start - figures, end + more
    room = width - 1 - cell_len(name[start:])
    if room >= 0:
        return f"{_first(name[:start], room)}…{name[start:]}"
    room = width - 2 - cell_len(name[start:end])
    if room < 0:
        return shortened(name, width)
    return f"…{name[start:end]}…{_last(name[end:], room)}"


def _alike(shown: Mapping[str, str]) -> list[list[str]]:
    """Returns the names that are shown as others are, those that look the same together."""
    groups: dict[str, list[str]] = {}
    for name, text in shown.items():
        groups.setdefault(text, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _common(texts: Sequence[str]) -> str:
    """Returns the beginning that all texts share."""
    return os.path.commonprefix(list(texts))  # noqa: RUF071 - of characters, not of folders


def _first(text: str, width: int) -> str:
    """Returns as much of the beginning as fits, characters with the marks that stand over them."""
    for place, one in enumerate(text):
        width -= cell_len(one)
        if width < 0:
            return text[:place]
    return text


def _last(text: str, width: int) -> str:
    """Returns as much of the end as fits, characters with the marks that stand over them."""
    begin = len(text)
    for place in reversed(range(len(text))):
        width -= cell_len(text[place])
        if width < 0:
            break
        if cell_len(text[place]):
            begin = place
    return text[begin:]


def _shown(columns: list[_Measured], width: int) -> list[_Measured]:
    """Returns the columns that there is room for: empty ones go first, and then as many as must."""
    if _room([one.whole for one in columns], width) >= 0:
        return columns
    kept = [one for one in columns if not one.empty or one.place == 0]
    spare = sorted((one for one in kept if one.column.spare), key=lambda one: -one.column.spare)
    out: list[_Measured] = []
    for one in spare:
        if _room([each.good for each in kept], width) >= 0:
            break
        kept.remove(one)
        out.append(one)
    for one in reversed(out):
        # One that went early may have been narrow enough to stay.
        if _room([each.good for each in [*kept, one]], width) >= 0:
            kept.append(one)
    return sorted(kept, key=lambda one: one.place)


def _widths(columns: list[_Measured], width: int) -> list[int]:
    """Returns how wide each column is: names give way first, then words, and ids last."""
    widths = [one.whole for one in columns]
    for floor in ([one.good for one in columns], [one.bad for one in columns], [1] * len(columns)):
        for kind in ("name", "words", "time", "id"):
            for place in sorted(range(len(columns)), key=lambda place: -widths[place]):
                if columns[place].column.kind == kind:
                    over = max(0, -_room(widths, width))
                    widths[place] -= min(over, max(0, widths[place] - floor[place]))
    return widths


def _room(widths: Sequence[int], width: int) -> int:
    return width - sum(widths) - _EDGES - _BETWEEN * (len(widths) - 1)


def _width(text: str) -> int:
    return _longest(text.split("\n"))


def _longest(parts: Iterable[str]) -> int:
    return max((cell_len(part.rstrip()) for part in parts), default=0)


def _wrapped(text: str, width: int) -> str:
    """Returns a text in lines of that width: broken between words, a longer word at its joints, or where it must."""
    return "\n".join(one for line in text.split("\n") for one in _lines(line, width))


def _lines(text: str, width: int) -> Iterator[str]:
    if cell_len(text) <= width:
        yield text
        return
    line = ""
    for part in _parts(text, width):
        if line and cell_len((line + part).rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += part
    yield line.rstrip()


def _parts(text: str, width: int) -> Iterator[str]:
    """Yields what may not be broken any further, each with the spaces behind it."""
    for word in re.findall(r"\S+\s*|\s+", text):
        if cell_len(word.rstrip()) <= width:
            yield word
            continue
        for joint in _JOINT.findall(word):
            yield from [joint] if cell_len(joint.rstrip()) <= width else chop_cells(joint, width)
