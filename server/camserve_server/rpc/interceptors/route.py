"""Chooses the version that answers a call, once: whatever the routes become meanwhile, the call keeps it."""

from __future__ import annotations

from camserve_server.core.model_routes import ModelRoutes
from camserve_server.rpc.call import Call, Interceptor, Proceed
from camserve_server.rpc.ending import deprecation_headers


def route(routes: ModelRoutes) -> Interceptor:
    """Returns the link that replaces the version asked for by the one that answers; of a client stream later, by
    `call.version`, because its options are not known yet.
    """

    async def choose(call: Call, proceed: Proceed) -> None:
        if "model_version" not in call.method.input_type.fields_by_name:
            await proceed()
            return
        chosen: list[str] = []

        def version(model: str, asked: str) -> str:
            if not chosen:
                choice = routes.choose(model, asked, tenant=call.identity.tenant, key=_key(call))
                chosen.append(choice.version)
                call.about = call.about | {"model": model, "model_version": choice.version}
                if choice.deprecation:
                    call.headers |= deprecation_headers(choice.deprecation)
            return chosen[0]

        call.version = version
        if not call.method.client_streaming:
            call.request.model_version = version(call.request.model, call.request.model_version)
        await proceed()

    return choose


def _key(call: Call) -> str | None:
    return call.metadata.get("route-key") or call.metadata.get("idempotency-key")
