"""One measurement under steady load: N callers, each with one call in flight, until the time is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
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
        """Returns what the answers show; with fewer than two in the window, the mean over all of them.

        The first answer in the window starts the clock and does not count, so that neither edge cuts an interval.
        """
        inside = sorted(one for one in self.finished if self.counts_from <= one[0] <= self.ends_at)
        if len(inside) < 2:
            inside = sorted(self.finished)
        if len(inside) < 2:
            return Sample(float("nan"), float("nan"), len(inside), len(self.finished), dict(self.errors))
        span_s = inside[-1][0] - inside[0][0]
        return Sample(
            ms_per_image=span_s * 1000 / (len(inside) - 1),
            p50_ms=median(latency for _, latency in inside) * 1000,
            images=len(inside) - 1,
            answered=len(self.finished),
            errors=dict(self.errors),
        )
