"""Tells callers of a method that ends when it does."""

from __future__ import annotations

from collections.abc import Mapping

from camserve_server.base.dates import Dates
from camserve_server.base.errors import OperatorError
from camserve_server.rpc.call import Call, Interceptor, Proceed
from camserve_server.rpc.ending import deprecation_headers
from camserve_server.rpc.server import services
from camserve_server.stores.model_routes import Deprecation


def deprecation(methods: Mapping[str, Dates]) -> Interceptor:
    """Returns the link that has every answer of these methods say so, a refusal too; named as `Service.Method`.

    Raises OperatorError for a name that is no method's.
    """
    known = {f"{service.name}.{method.name}" for service in services().values() for method in service.methods}
    if unknown := methods.keys() - known:
        raise OperatorError(f"CAMSERVE_DEPRECATED_METHODS names {min(unknown)}, which is no method of the API")
    headers = {name: deprecation_headers(_deprecation(dates)) for name, dates in methods.items()}

    async def note(call: Call, proceed: Proceed) -> None:
        call.dates = headers.get(f"{call.method.containing_service.name}.{call.method.name}", {})
        await proceed()

    return note


def _deprecation(dates: Dates) -> Deprecation:
    sunset = int(dates.sunset_at.timestamp()) if dates.sunset_at else None
    return Deprecation(int(dates.deprecated_at.timestamp()), sunset, dates.link)
