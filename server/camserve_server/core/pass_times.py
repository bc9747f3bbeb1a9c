"""Times of forward passes in buckets that can be added up, and compared like with like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from camserve_server.engine.prediction import Prediction

# Eight buckets for each doubling: a quantile is known to a factor of 1.09.
_STEPS = 8
_FIRST, _LAST = -4 * _STEPS, 18 * _STEPS  # 1/16 ms, and 262 s: more than any pass may take
_PREFIX = "pass "

Histogram = dict[int, float]


def counter(prediction: Prediction) -> str:
    """Returns the name under which a prediction's pass and map are counted: stratum and bucket.

    A stratum holds passes that take alike: with or without a heatmap, of 1, 2 to 3, 4 to 7 pictures and so on. The wait
    for the device is left out, because it depends on how many calls a version gets.
    """
    took_ms = prediction.inference_ms + prediction.cam_ms
    bucket = math.ceil(_STEPS * math.log2(took_ms)) if took_ms > 0 else _FIRST
    kind = "plain" if prediction.cam is None else "map"
    return f"{_PREFIX}{kind}{prediction.batch_size.bit_length()} {min(max(bucket, _FIRST), _LAST)}"


def strata(counts: Mapping[str, float]) -> dict[str, Histogram]:
    """Returns the passes of a series by stratum and bucket."""
    found: dict[str, Histogram] = {}
    for name, count in counts.items():
        if name.startswith(_PREFIX):
            stratum, _, bucket = name.removeprefix(_PREFIX).partition(" ")
            found.setdefault(stratum, {})[int(bucket)] = count
    return found


def together(passes: Mapping[str, Histogram]) -> Histogram:
    """Returns the passes of all strata by bucket."""
    total: Histogram = {}
    for histogram in passes.values():
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile_ms(passes: Mapping[int, float], share: float) -> float | None:
    """Returns the time that this share of the passes does not exceed, None of no passes."""
    wanted, counted = share * sum(passes.values()), 0.0
    for bucket in sorted(passes):
        counted += passes[bucket]
        if counted >= wanted:
            return _upper_ms(bucket)
    return None


def ratios(
    passes: Mapping[str, Histogram], others: Mapping[str, Histogram], *, share: float, least: int
) -> Iterator[tuple[float, float]]:
    """Yields how often a pass took how many times what the given share of the other version's passes does not exceed.

    Each is compared within its stratum, where the other version has at least `least` passes, and counts as its bucket's
    least time.
    """
    for stratum, histogram in passes.items():
        other = others.get(stratum, {})
        if sum(other.values()) >= least and (bar_ms := quantile_ms(other, share)):
            for bucket, count in histogram.items():
                yield _upper_ms(bucket - 1) / bar_ms, count


def _upper_ms(bucket: int) -> float:
    return float(2 ** (bucket / _STEPS))
