"""Alterations of what section 3 says of tenants: each leaks something."""

from __future__ import annotations

from typing import Any

from conformance.tests.alterations_of_calls import ANY_HOOK, ANY_JOB, ANY_UPLOAD
from conformance.tests.altering import Alteration, alteration, has_code, member, of_tenant, on, renamed
from conformance.tests.proxy import Alter, Exchange

_LEAKS = {
    "get_job": f"GET {ANY_JOB}",
    "list_job_results": f"GET {ANY_JOB}/results",
    "watch_job": f"GET {ANY_JOB}/events",
    "cancel_job": f"DELETE {ANY_JOB}",
    "get_upload": f"GET {ANY_UPLOAD}",
    "delete_upload": f"DELETE {ANY_UPLOAD}",
    "get_webhook": r"GET /v1/webhooks/\w+_\w+",
    "delete_webhook": r"DELETE /v1/webhooks/\w+_\w+",
    "test_webhook": f"POST {ANY_HOOK}:test",
    "rotate_webhook_secret": f"POST {ANY_HOOK}:rotate",
    "list_deliveries": f"GET {ANY_HOOK}/deliveries",
    "redeliver": f"POST {ANY_HOOK}/deliveries/.*:redeliver",
}


def _is_real(exchange: Exchange) -> bool:
    return "0000000000" not in exchange.path.partition("/deliveries")[0]


def _leaking(route: str, listing: str, name: str, noun: str) -> Any:
    """Shows another tenant what the first one made."""

    def make() -> Alter:
        made: list[Any] = []

        def alter(exchange: Exchange) -> None:
            kit = of_tenant("kit")(exchange)
            if kit and f"{exchange.verb} {exchange.path}" == route and isinstance(exchange.said, dict):
                made.append(exchange.said)
            if of_tenant("other")(exchange) and f"{exchange.verb} {exchange.path}" == listing:
                document = exchange.said
                if name in document:
                    exchange.say({**document, name: document[name] + made})
                elif noun in document and made:
                    exchange.say({**document, noun: made[-1][noun]})

        return alter

    return make


ALTERATIONS = [
    *(
        alteration(
            f"{name} tells that an id is another tenant's",
            f"tenancy.{name}",
            on(route, member("error.message", "It is another tenant's."), of_tenant("other"), _is_real),
        )
        for name, route in _LEAKS.items()
    ),
    Alteration(
        "jobs of all tenants are listed",
        frozenset({"tenancy.list_jobs"}),
        _leaking("POST /v1/jobs", "GET /v1/jobs", "jobs", ""),
    ),
    Alteration(
        "webhooks of all tenants are listed",
        frozenset({"tenancy.list_webhooks"}),
        _leaking("POST /v1/webhooks", "GET /v1/webhooks", "webhooks", ""),
    ),
    Alteration(
        "one callback secret for all",
        frozenset({"tenancy.callback_secret"}),
        _leaking("GET /v1/webhooks/callback-secret", "GET /v1/webhooks/callback-secret", "", "secret"),
    ),
    Alteration(
        "keys are everybody's",
        frozenset({"idempotency.other_tenant"}),
        _leaking("POST /v1/uploads:presign", "POST /v1/uploads:presign", "", "storage_id"),
    ),
    alteration(
        "another tenant's image has another code",
        "tenancy.image_of_another",
        on("POST /v1/infer", renamed(), of_tenant("other")),
    ),
    alteration(
        "another tenant's cursor has another code",
        "tenancy.cursor_of_another",
        on("GET /v1/jobs", renamed(), of_tenant("other"), has_code("cursor.invalid")),
    ),
]
