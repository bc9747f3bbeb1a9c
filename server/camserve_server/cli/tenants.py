"""Limits of tenants and plans from the command line, through the running server's internal listener."""

from __future__ import annotations

from camserve.v1 import admin_pb2 as pb
from camserve_server.base.config import Settings
from camserve_server.cli.admin import ask

_WORDS = {
    "requests_per_second": "rps",
    "burst": "burst",
    "images_per_day": "images-per-day",
    "concurrency": "concurrency",
    "max_batch_size": "max-batch",
    "max_image_bytes": "max-image-bytes",
}


def set_tenant(settings: Settings, tenant: str, plan: str | None, **limits: int | None) -> str:
    """Changes what is given and returns a line about the tenant; raises ValueError when the server refuses it."""
    request = pb.SetTenantRequest(tenant=tenant, plan=plan, limits=_values(limits))
    return _line(ask(settings, lambda admin, options: admin.SetTenant(request, **options)))


def reset_tenant(settings: Settings, tenant: str) -> str:
    """Gives a tenant the limits of everybody and returns a line about it; raises ValueError as `set_tenant` does."""
    request = pb.ResetTenantRequest(tenant=tenant)
    return _line(ask(settings, lambda admin, options: admin.ResetTenant(request, **options)))


def show_tenant(settings: Settings, tenant: str) -> str:
    """Returns a line about a tenant; raises ValueError as `set_tenant` does."""
    request = pb.GetTenantRequest(tenant=tenant)
    return _line(ask(settings, lambda admin, options: admin.GetTenant(request, **options)))


def list_tenants(settings: Settings) -> list[str]:
    """Returns a line for each tenant that has a plan or limits of its own; raises ValueError when no server answers."""
    answer = ask(settings, lambda admin, options: admin.ListTenants(pb.ListTenantsRequest(), **options))
    return [_line(tenant) for tenant in answer.tenants]


def set_plan(settings: Settings, plan: str, **limits: int | None) -> str:
    """Makes or changes a plan and returns a line about it; raises ValueError as `set_tenant` does."""
    request = pb.SetPlanRequest(plan=plan, limits=_values(limits))
    return _plan(ask(settings, lambda admin, options: admin.SetPlan(request, **options)))


def list_plans(settings: Settings) -> list[str]:
    """Returns a line for each plan; raises ValueError when no server answers."""
    answer = ask(settings, lambda admin, options: admin.ListPlans(pb.ListPlansRequest(), **options))
    return [_plan(plan) for plan in answer.plans]


def delete_plan(settings: Settings, plan: str) -> None:
    """Removes a plan; raises ValueError as `set_tenant` does."""
    ask(settings, lambda admin, options: admin.DeletePlan(pb.DeletePlanRequest(plan=plan), **options))


def _values(limits: dict[str, int | None]) -> pb.LimitValues:
    return pb.LimitValues(**{name: value for name, value in limits.items() if value is not None})


def _line(tenant: pb.Tenant) -> str:
    own = {field.name for field, _ in tenant.overrides.ListFields()}
    plan = f"  plan {tenant.plan}" if tenant.HasField("plan") else ""
    return f"{tenant.tenant}{plan}  {_limits(tenant.limits, own)}"


def _plan(plan: pb.Plan) -> str:
    return f"{plan.plan}  {_limits(plan.limits, set())}"


def _limits(values: pb.LimitValues, own: set[str]) -> str:
    """Returns limits in words; a star marks those that are the tenant's own."""
    return "  ".join(
        f"{_WORDS[field.name]} {value}{'*' if field.name in own else ''}" for field, value in values.ListFields()
    )
