"""Section 4: models and their labels, limits, and health."""

from __future__ import annotations

from datetime import UTC, datetime

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.shapes import LIMITS, PAGE, VERSION, expect_shape, moment

models = Section("models", "4. Messages: models")
limits = Section("limits", "4. Messages: limits")

_STATES = {"ready", "loading", "unavailable", "retired"}
_GOLDEN = {"passed", "failed", "none"}
_MODEL = {"model": "a string", "versions": [VERSION]}


@models.check("A listing has models and page, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await kit.call("ListModels")
    expect_shape(answer, answer.need(), {"models": [_MODEL], "page": PAGE})


@models.check("A version's state is ready, loading, unavailable or retired.", ways=BOTH)
async def states(kit: Kit) -> None:
    answer = await kit.call("ListModels")
    told = {version["state"] for model in answer.need()["models"] for version in model["versions"]}
    answer.expect(told <= _STATES, f"the states are {sorted(told)}")


@models.check("`golden` is passed, failed or none.", ways=BOTH)
async def golden(kit: Kit) -> None:
    answer = await kit.call("ListModels")
    told = {version["golden"] for model in answer.need()["models"] for version in model["versions"]}
    answer.expect(told <= _GOLDEN, f"golden is {sorted(told)}")


@models.check("`default_layer` is one of `layers`.", ways=BOTH)
async def default_layer(kit: Kit) -> None:
    answer = await kit.call("GetModel", {"model": await kit.model()})
    for version in answer.need()["versions"]:
        known = version["state"] != "ready" or version["default_layer"] in version["layers"]
        answer.expect(known, f"version {version['version']} has {version['default_layer']!r} not among its layers")


@models.check("One model is told as in the listing.", ways=BOTH)
async def one(kit: Kit) -> None:
    answer = await kit.call("GetModel", {"model": await kit.model()})
    expect_shape(answer, answer.need(), _MODEL)
    answer.expect_equal("model", answer.body["model"], await kit.model())


async def _full(kit: Kit) -> Answer:
    return await kit.call("GetModel", {"model": await kit.model(), "view": "full"})


@models.check("?view=full tells the labels, as many as there are classes.", ways=BOTH)
async def full(kit: Kit) -> None:
    answer = await _full(kit)
    stable = (await kit.version())["version"]
    version = next(each for each in answer.need()["versions"] if each["version"] == stable)
    labels = version.get("labels", [])
    expect_shape(answer, labels, [{"id": "a string", "label": "a string"}], "labels")
    answer.expect_equal("the number of labels", len(labels), version["classes"])


@models.check("The mapping of labels is between the versions that were named.", ways=BOTH)
async def mapping(kit: Kit) -> None:
    version = await kit.version()
    named = {"from": version["labels_version"], "to": version["labels_version"]}
    answer = await kit.call("GetLabelMapping", {"model": version["model"], **named})
    told = {name: answer.need()[name] for name in ("from", "to")}
    answer.expect_equal("the mapping", told, named)
    answer.expect_equal("the number of classes", len(answer.body["classes"]), version["classes"])


@limits.check("Limits have their members, of their types.", ways=BOTH)
async def limits_shape(kit: Kit) -> None:
    answer = await kit.call("GetLimits")
    expect_shape(answer, answer.need(), LIMITS)


@limits.check("What is left of the rate is no more than the burst.", ways=BOTH)
async def burst(kit: Kit) -> None:
    answer = await kit.call("GetLimits")
    rate = answer.need()["requests_per_second"]
    answer.expect(rate["remaining"] <= rate["burst"], f"{rate['remaining']} of {rate['burst']} are left")


@limits.check("`images_per_day.resets_at` is ahead.", ways=BOTH)
async def resets_at(kit: Kit) -> None:
    answer = await kit.call("GetLimits")
    resets_at = answer.need()["images_per_day"]["resets_at"]
    answer.expect(moment(resets_at) > datetime.now(UTC), f"resets_at is {resets_at}")


@limits.check("`images_per_day.used` counts an image that was classified.", ways=BOTH, alone=True)
async def used(kit: Kit) -> None:
    before = (await kit.call("GetLimits")).need()["images_per_day"]["used"]
    (await kit.infer()).need()
    answer = await kit.call("GetLimits")
    after = answer.need()["images_per_day"]["used"]
    answer.expect(after > before or after == 1, f"it was {before}, and is {after} after an image")


@limits.check("A request beyond the rate is 429 rate.exceeded.", ways=BOTH, needs=("slow_token",), alone=True)
async def rate(kit: Kit) -> None:
    (await too_many(kit)).expect_refusal("rate.exceeded")


@limits.check("429 carries Retry-After in seconds, 1 at least.", ways=BOTH, needs=("slow_token",), alone=True)
async def retry_after(kit: Kit) -> None:
    answer = await too_many(kit)
    value = answer.headers.get("retry-after", "")
    answer.expect(value.isdigit() and int(value) >= 1, f"Retry-After is {value!r}")


_MOST_BURST = 100


async def too_many(kit: Kit) -> Answer:
    """Returns the first refusal of a tenant whose burst is used up, one call after the other."""
    slow = kit.options.slow_token
    answer = await kit.call("GetLimits", token=slow)
    rate = answer.need()["requests_per_second"]
    if rate["burst"] > _MOST_BURST:
        raise BlockedError(f"the tenant of --slow-token has a burst of {rate['burst']}, above {_MOST_BURST}")
    # What the rate gives back meanwhile is used up too.
    for _ in range(3 * rate["burst"] + 3):
        answer = await kit.call("GetLimits", token=slow, obeys_limits=False)
        if not answer.ok:
            return answer
    raise BlockedError(f"{3 * rate['burst'] + 3} calls in a row did not use up a burst of {rate['burst']}")
