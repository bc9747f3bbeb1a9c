"""What replicas say of themselves on their metrics ports, and what happened between two looks."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One value with its labels."""

    labels: dict[str, str]
    value: float


class Look:
    """The metrics of one replica at one moment; empty where it did not answer."""

    def __init__(self, text: str | None, at: float) -> None:
        """Reads a page of metrics; raises ValueError where it is none."""
        self.answered = text is not None
        self.at = at
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                self._samples[sample.name].append(Sample(sample.labels, sample.value))

    def of(self, name: str, **where: str) -> list[Sample]:
        """Returns the values of a metric whose labels are these."""
        return [sample for sample in self._samples.get(name, ()) if where.items() <= sample.labels.items()]

    def sum(self, name: str, **where: str) -> float:
        """Returns the sum of them."""
        return sum(sample.value for sample in self.of(name, **where))


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two looks at one replica, the first of which may not have been answered."""

    before: Look
    after: Look

    def increase(self, name: str, **where: str) -> float:
        """Returns by how much a counter grew; of a replica that began anew, its whole."""
        grown = self.after.sum(name, **where) - self.before.sum(name, **where)
        return grown if grown >= 0 else self.after.sum(name, **where)

    def rate(self, name: str, **where: str) -> float:
        """Returns the same a second."""
        return self.increase(name, **where) / max(1e-3, self.after.at - self.before.at)

    def buckets(self, name: str, **where: str) -> dict[float, float]:
        """Returns by how much the buckets of a histogram grew, by their upper bound."""
        grown: defaultdict[float, float] = defaultdict(float)
        for look, sign in ((self.after, 1), (self.before, -1)):
            for sample in look.of(f"{name}_bucket", **where):
                grown[float(sample.labels["le"])] += sign * sample.value
        return dict(grown)


def quantile(share: float, buckets: Iterable[dict[float, float]]) -> float | None:
    """Returns what `share` (0 to 1) of the measured lie below, within its bucket as if spread evenly; None of none."""
    together: defaultdict[float, float] = defaultdict(float)
    for each in buckets:
        for bound, count in each.items():
            together[bound] += count
    bounds = sorted(together)
    if not bounds or together[bounds[-1]] <= 0:
        return None
    wanted, below, lower = share * together[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if together[bound] >= wanted:
            if bound == float("inf"):
                return lower
            inside = together[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        below, lower = together[bound], bound
    return lower


def look(address: str) -> Look:
    """Returns what a replica says now; `address` is like `http://127.0.0.1:9464/metrics`."""
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            return Look(answer.read().decode(), time.monotonic())
    except (urllib.error.URLError, OSError, ValueError):
        return Look(None, time.monotonic())
