"""How long what a tenant stores is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """`default_hours`, but for tenants that have a time of their own."""

    default_hours: float
    by_tenant: Mapping[str, float]

    def seconds(self, tenant: str) -> float:
        """Returns how long an object of the tenant is kept that nobody asked to keep for another time."""
        return self.by_tenant.get(tenant, self.default_hours) * _HOUR_S
