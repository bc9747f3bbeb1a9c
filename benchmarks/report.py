"""Figures as tables for people, and the targets they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure and its target; `at_least` says on which side of the target it must be."""

    name: str
    value: float
    target: float
    unit: str = ""
    at_least: bool = False

    @property
    def passes(self) -> bool:
        """Is true when the target is met; a figure that is not a number never meets it."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def row(self) -> tuple[str, str, str, str]:
        """Returns name, figure, target and outcome."""
        sign = ">=" if self.at_least else "<="
        return (
            self.name,
            f"{self.value:.2f}{self.unit}",
            f"{sign} {self.target:g}{self.unit}",
            "pass" if self.passes else "MISS",
        )


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, aligned so that it reads in a terminal too; every column but the first is right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join((first, *others)) + " |"

    ruler = "|" + "|".join("-" * (width + 2) if n == 0 else "-" * (width + 1) + ":" for n, width in enumerate(widths))
    return "\n".join((f"\n### {title}\n", line(header), ruler + "|", *map(line, rows)))


def number(value: float) -> str:
    """Returns three significant digits below 100, whole numbers above, and nothing for what was not measured."""
    if isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
