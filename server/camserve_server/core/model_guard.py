"""Whether a version does as well as the one it is to follow, judged by figures of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from camserve_server.core import comparisons, pass_times
from camserve_server.core.comparisons import Agreement, Mean
from camserve_server.core.model_figures import Role, series
from camserve_server.stores.model_routes import Guard

State = Literal["waiting", "kept", "passed"]

# Standard errors by which a figure must lie beyond its limit. It is looked at every second, and with three of them a
# sound version is found wanting once in 740 independent looks.
_Z = 3.0
# The quantile of the passes' times that is compared.
_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Check:
    """One limit and how a version stands to it.

    `calls` counts what it is judged by; with fewer than the guard wants it is `waiting`. `value` is None where there is
    nothing to judge by. It is `passed` only if it lies beyond the limit by more than chance explains.
    """

    limit: str
    value: float | None
    bound: float
    calls: int
    state: State
    why: str


def judge(
    guard: Guard, figures: Mapping[str, Mapping[str, float]], version: str, against: str, role: Role
) -> list[Check]:
    """Returns a check for each limit of the guard; latency is that of calls in the version's `role`."""
    agreement = Agreement.of(figures.get(comparisons.series(version, against), {}))
    return [
        _errors(guard, figures, version, against),
        _latency(guard, figures, version, against, role),
        _agreement(guard, agreement),
        _class_shift(guard, agreement),
        _mean(guard, "heatmap_iou", "heatmap IoU", agreement.iou, guard.min_heatmap_iou, least=True),
        _mean(guard, "centre_shift", "heatmap centre shift", agreement.shift, guard.max_centre_shift, least=False),
    ]


def wilson(count: float, total: float) -> tuple[float, float]:
    """Returns the bounds of a share of which `count` in `total` were seen (Wilson 1927), at three standard errors."""
    if not total:
        return 0.0, 1.0
    share, squared = count / total, _Z**2
    middle = share + squared / (2 * total)
    spread = _Z * math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    scale = 1 + squared / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _errors(guard: Guard, figures: Mapping[str, Mapping[str, float]], version: str, against: str) -> Check:
    roles: tuple[Role, Role] = ("answer", "shadow")
    own = [figures.get(series(version, role), {}) for role in roles]
    calls, errors = (sum(each.get(name, 0) for each in own) for name in ("calls", "errors"))
    others = figures.get(series(against, "answer"), {})
    usual = others.get("errors", 0) / max(1, others.get("calls", 0))
    bound = usual + guard.max_error_rate
    why = f"error rate {{:.3g}} above {bound:.3g} in {calls:g} calls, version {against} has {usual:.3g}"
    rate = errors / calls if calls else None
    return _check(guard, "error_rate", rate, bound, calls, wilson(errors, calls)[0] > bound, why)


def _latency(guard: Guard, figures: Mapping[str, Mapping[str, float]], version: str, against: str, role: Role) -> Check:
    passes = pass_times.strata(figures.get(series(version, role), {}))
    others = pass_times.strata(figures.get(series(against, "answer"), {}))
    found = sorted(pass_times.ratios(passes, others, share=_SHARE, least=guard.min_calls))
    calls = sum(count for _, count in found)
    slow = sum(count for ratio, count in found if ratio > guard.max_latency_ratio)
    bound = guard.max_latency_ratio
    why = f"p95 latency {{:.3g}} times that of version {against}, above {bound:g}, in {calls:g} calls"
    # Its p95 lies beyond the bound where more than one in twenty of its passes do.
    passed = wilson(slow, calls)[0] > 1 - _SHARE
    return _check(guard, "latency_ratio", _quantile(found, _SHARE), bound, calls, passed, why)


def _agreement(guard: Guard, agreement: Agreement) -> Check:
    pictures, bound = agreement.pictures, guard.min_agreement
    share = agreement.agreeing / pictures if pictures else None
    passed = wilson(agreement.agreeing, pictures)[1] < bound
    why = f"top class agreement {{:.3g}} below {bound:g} in {pictures} shadowed calls"
    return _check(guard, "agreement", share, bound, pictures, passed, why)


def _class_shift(guard: Guard, agreement: Agreement) -> Check:
    pictures, bound = agreement.pictures, guard.max_class_shift
    differing = 1 - agreement.agreeing / max(1, pictures)
    passed = agreement.class_shift - _Z * math.sqrt(differing / max(1, pictures)) > bound
    why = f"class shift {{:.3g}} above {bound:g} in {pictures} shadowed calls"
    return _check(guard, "class_shift", agreement.class_shift if pictures else None, bound, pictures, passed, why)


def _mean(guard: Guard, limit: str, words: str, mean: Mean, bound: float, *, least: bool) -> Check:
    beyond: Callable[[float], bool] = (
        (lambda value: value + _Z * mean.error < bound) if least else (lambda value: value - _Z * mean.error > bound)
    )
    passed = mean.value is not None and beyond(mean.value)
    why = f"{words} {{:.3g}} {'below' if least else 'above'} {bound:g} in {mean.count} shadowed calls"
    return _check(guard, limit, mean.value, bound, mean.count, passed, why)


def _check(guard: Guard, limit: str, value: float | None, bound: float, calls: float, passed: bool, why: str) -> Check:
    state: State = "waiting" if calls < guard.min_calls else "passed" if passed else "kept"
    return Check(limit, value, bound, round(calls), state, why.format(value or 0))


def _quantile(found: list[tuple[float, float]], share: float) -> float | None:
    """Returns the value that this share of sorted (value, count) does not exceed."""
    left = share * sum(count for _, count in found)
    for value, count in found:
        left -= count
        if left <= 0:
            return value
    return None
