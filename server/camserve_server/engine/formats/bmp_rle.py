"""The run-length codes of BMP (RLE8 and RLE4), decoded to one byte per pixel."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

import numpy as np

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats.source import PictureFile

Numbers = np.ndarray[Any, np.dtype[np.integer[Any]]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_CHUNK_BYTES: Final = 1 << 17
_PAINTED_AT_ONCE: Final = 1 << 20
# Of stretches of single pixels and of jumps, each of which takes a step of Python: more than a dithered picture of the
# largest size has, and a second's work.
_MOST_ESCAPES: Final = 2_000_000
_LINE_END, _PICTURE_END, _JUMP = 0, 1, 2


def decode(file: PictureFile, offset: int, width: int, height: int, *, nibbles: bool) -> Pixels:
    """Return the (height, width) numbers of the colours, rows as stored; what no code reaches is 0.

    `nibbles` means RLE4. Raises IMAGE_REJECTED for more escapes than a picture has, IMAGE_DECODING_FAILED where the
    file ends before the picture.
    """
    canvas = _Canvas(width, height, nibbles=nibbles)
    escapes = 0
    while not canvas.full:
        # Every code begins at an even distance from the first.
        chunk = file.at(offset, _CHUNK_BYTES)
        words = np.frombuffer(chunk, np.uint8, len(chunk) // 2 * 2).reshape(-1, 2)
        starts, used, ended = _escapes(words, nibbles)
        escapes += len(starts)
        if escapes > _MOST_ESCAPES:
            raise ApiError(Reason.IMAGE_REJECTED)
        canvas.add(words[:used], starts)
        if ended:
            break
        if not used and not canvas.full:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        offset += 2 * used
    return canvas.pixels


def _escapes(words: Pixels, nibbles: bool) -> tuple[Numbers, int, bool]:
    """Return where escapes with operands begin, how many words are whole codes, and whether they end the picture."""
    # Operands may look like escapes, so that only a walk tells which are.
    candidates = np.flatnonzero((words[:, 0] == 0) & (words[:, 1] != _LINE_END))
    places, kinds = candidates.data, words[candidates, 1].tobytes()
    starts: list[int] = []
    index = 0
    while index < len(places):
        at, kind = places[index], kinds[index]
        if kind == _PICTURE_END:
            return np.array(starts, np.int64), at, True
        after = at + 1 + (1 if kind == _JUMP else -(-kind // 4) if nibbles else -(-kind // 2))
        if after > len(words):
            return np.array(starts, np.int64), at, False
        starts.append(at)
        index = bisect_left(places, after, index + 1, min(len(places), index + after - at))
    return np.array(starts, np.int64), len(words), False


class _Canvas:
    """Takes codes in order and paints them as runs, one behind the other."""

    def __init__(self, width: int, height: int, *, nibbles: bool) -> None:
        self.pixels: Pixels = np.zeros((height, width), np.uint8)
        self._flat = self.pixels.reshape(-1)
        self._width = width
        self._nibbles = nibbles
        self._at = 0
        self._column = 0

    @property
    def full(self) -> bool:
        """Whether there is no pixel left to paint."""
        return self._at >= self._flat.size

    def add(self, words: Pixels, starts: Numbers) -> None:
        """Paint whole codes, of which those at `starts` have operands."""
        if not len(words):
            return
        runs = words[:, 0].astype(np.int32)
        line_ends = (runs == 0) & (words[:, 1] == _LINE_END)
        if len(starts):
            self._paint(*self._expanded(words, starts, line_ends))
        else:
            self._paint(runs, words[:, 1], line_ends)

    def _expanded(self, words: Pixels, starts: Numbers, line_ends: Flags) -> tuple[Numbers, Pixels, Flags, Numbers]:
        """Return two runs for each word: of an operand its two bytes, of a code itself and one of no length.

        The last array says how many lines a jump leaves out.
        """
        kinds = words[starts, 1].astype(np.int64)
        jumps = kinds == _JUMP
        per_byte = 2 if self._nibbles else 1
        n_bytes = -(-kinds // per_byte)
        n_words = np.where(jumps, 1, -(-n_bytes // 2))
        edges = np.zeros(len(words) + 1, np.int8)
        edges[starts + 1] += 1
        edges[starts + 1 + n_words] -= 1
        operands = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
        runs, colours = np.empty(words.shape, np.int32), words.copy()
        runs[:, 0], runs[:, 1] = np.where(operands, per_byte, words[:, 0]), operands * np.int32(per_byte)
        colours[:, 0] = np.where(operands, words[:, 0], words[:, 1])
        last, has_two = starts + n_words, n_bytes % 2 == 0
        runs[last, 1] = np.where(has_two, per_byte, 0)
        # The last byte of an odd number of nibbles has one.
        odd = kinds % per_byte == 1
        runs[last[odd], has_two[odd].astype(np.int32)] = 1
        jumped = starts[jumps] + 1
        skipped_lines = np.zeros_like(runs)
        runs[jumped, 0], runs[jumped, 1] = words[jumped, 0], 0
        colours[jumped] = 0
        skipped_lines[jumped, 0] = words[jumped, 1]
        ends = np.zeros(words.shape, bool)
        ends[:, 0] = line_ends & ~operands
        return runs.reshape(-1), colours.reshape(-1), ends.reshape(-1), skipped_lines.reshape(-1)

    def _paint(self, runs: Numbers, colours: Pixels, line_ends: Flags, skipped_lines: Numbers | None = None) -> None:
        # Columns count from the last end of a line; beyond the width nothing is painted.
        reached = np.cumsum(runs, dtype=np.int32)
        bases = np.maximum.accumulate(np.where(line_ends, reached, np.int32(-self._column)))
        before = np.concatenate((np.array([-self._column], np.int32), bases[:-1]))
        after = np.minimum(reached - before, self._width)
        lengths = after - np.minimum(reached - runs - before, self._width)
        lengths[line_ends] = self._width - after[line_ends]
        if skipped_lines is not None:
            lengths += skipped_lines * self._width
        self._column = int(min(reached[-1] - bases[-1], self._width))
        ends = self._at + np.cumsum(lengths, dtype=np.int64)
        # What would lie above the picture is left out.
        first, last = 0, min(int(np.searchsorted(ends, self._flat.size)) + 1, len(ends))
        while first < last:
            until = min(max(first + 1, int(np.searchsorted(ends, self._at + _PAINTED_AT_ONCE))), last)
            painted = self._painted(colours[first:until], lengths[first:until])[: self._flat.size - self._at]
            self._flat[self._at : self._at + len(painted)] = painted
            self._at += len(painted)
            first = until

    def _painted(self, colours: Pixels, lengths: Numbers) -> Pixels:
        painted = np.repeat(colours, lengths)
        if not self._nibbles:
            return painted
        # The two colours of a byte take turns from the beginning of its run.
        second = np.repeat(((np.cumsum(lengths) - lengths) & 1).astype(np.uint8), lengths)
        second[1::2] ^= 1
        return np.where(second, painted & np.uint8(15), painted >> np.uint8(4))
