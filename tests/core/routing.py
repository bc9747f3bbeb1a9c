"""What is asked of a replica's routes in a line."""

from __future__ import annotations

TENANTS = [f"tenant-{n}" for n in range(2000)]


def chosen(routes, asked="", tenant="anybody", key=None):
    return routes.choose("tiny", asked, tenant=tenant, key=key).version


def reason(caught):
    return caught.value.reason
