"""How a run of the resilience benchmark goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """`seed` decides every choice that is made at random; `quick` is the part of it that the test suite runs."""

    seed: int
    quick: bool

    def seconds(self, whole: float, quick: float) -> float:
        """Returns how long to measure."""
        return quick if self.quick else whole
