"""One measurement under steady load: N callers, each with one call in flight, until the time is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import nan
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """What a measurement showed.

    `ms_per_image` is the time between the answers under steady load, the inverse of throughput; `p50_ms` what a
    caller waits. `images` counts what was measured, `answered` all answers, those of the warm-up and those that
    came after the end included. `errors` counts refusals and failures by what they said.
    """

    ms_per_image: float
    p50_ms: float
    images: int
    answered: int
    errors: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Returns the sample as JSON can carry it."""
        return asdict(self)


@dataclass(slots=True)
class Window:
    """Collects answers; times are seconds of one monotonic clock."""

    counts_from: float
    ends_at: float
    finished: list[tuple[float, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, now: float, warm_up_s: float, seconds: float) -> Window:
        """Returns the window that begins after the warm-up."""
        return cls(now + warm_up_s, now + warm_up_s + seconds)

    def add(self, started: float, finished: float) -> None:
        """Adds an answer."""
        self.finished.append((finished, finished - started))

    def sample(self) -> Sample:
        """Returns what the answers show; where the window caught too few, what all of them show.

        Answers come in bursts, a batch at a time. The clock therefore runs from the last answer before the window
        to the last one in it, which are ends of bursts: from the first answer in it to the last, it would count
        one burst too many.
        """
        answers = sorted(self.finished)
        counted = [one for one in answers if self.counts_from < one[0] <= self.ends_at]
        before = [finished for finished, _ in answers if finished <= self.counts_from]
        if not counted or not before:
            counted, before = answers[1:], [finished for finished, _ in answers[:1]]
        if not counted:
            return Sample(nan, nan, 0, len(answers), dict(self.errors))
        return Sample(
            ms_per_image=(counted[-1][0] - before[-1]) * 1000 / len(counted),
            p50_ms=median(latency for _, latency in counted) * 1000,
            images=len(counted),
            answered=len(answers),
            errors=dict(self.errors),
        )
