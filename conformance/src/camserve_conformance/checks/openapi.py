"""The OpenAPI document, and health: what a deployment says of itself."""

from __future__ import annotations

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.routes import ROUTES
from camserve_conformance.shapes import BOOL, INT32, STRING, expect_shape

health = Section("health", "1. Surface: health")
section = Section("openapi", "The OpenAPI document")

_HEALTH = {
    "status": STRING,
    "version": STRING,
    "uptime_s": INT32,
    "components": [{"name": STRING, "healthy": BOOL}],
}


@health.check("Health has status, version, uptime_s and components, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await kit.call("GetHealth", token=None)
    expect_shape(answer, answer.need(), _HEALTH)


@health.check("Health says serving, or degraded.", ways=BOTH)
async def status(kit: Kit) -> None:
    answer = await kit.call("GetHealth", token=None)
    answer.expect_equal("status", answer.need()["status"], "serving", "degraded")


async def _document(kit: Kit) -> Answer:
    async def make() -> Answer:
        return await kit.rest.request("GET", "/v1/openapi.json", token=None)

    answer: Answer = await kit.once("openapi", make)
    if answer.status in (401, 404):
        raise SkippedError("the deployment has no OpenAPI document, which the first release had not")
    return answer


@section.check("GET /v1/openapi.json answers 200, to anybody.")
async def public(kit: Kit) -> None:
    (await _document(kit)).expect_status(200)


@section.check("It is OpenAPI 3.1.")
async def version(kit: Kit) -> None:
    answer = await _document(kit)
    told = str(answer.need().get("openapi"))
    answer.expect(told.startswith("3.1."), f"openapi is {told!r}")


@section.check("It describes every route of section 1.")
async def routes(kit: Kit) -> None:
    answer = await _document(kit)
    paths = answer.need()["paths"]
    missing = [
        f"{each.verb} {each.path}" for each in ROUTES.values() if each.verb.lower() not in paths.get(each.path, {})
    ]
    answer.expect(not missing, f"it lacks {', '.join(missing)}")


@section.check("It names the scope of every route.")
async def scopes(kit: Kit) -> None:
    answer = await _document(kit)
    for route in ROUTES.values():
        if route.scope:
            said = answer.need()["paths"][route.path][route.verb.lower()].get("security", [])
            told = {scope for each in said for named in each.values() for scope in named}
            answer.expect(route.scope in told, f"{route.verb} {route.path} does not name {route.scope}")
