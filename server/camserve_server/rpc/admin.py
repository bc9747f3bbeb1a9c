"""AdminService: what tenants may do."""

from __future__ import annotations

from dataclasses import asdict

from camserve.v1 import admin_pb2 as pb
from camserve_server.core.limits import LimitAdmin, TenantLimits
from camserve_server.rpc.call import Call
from camserve_server.stores.limits import TenantRecord, Values


class AdminServicer:
    """Converts between messages and the rules in core/limits."""

    def __init__(self, limits: LimitAdmin) -> None:
        self._limits = limits

    async def list_tenants(self, call: Call, request: pb.ListTenantsRequest) -> pb.ListTenantsResponse:
        """Lists the tenants for which something is set."""
        return pb.ListTenantsResponse(tenants=[_tenant(*entry) for entry in await self._limits.tenants()])

    async def get_tenant(self, call: Call, request: pb.GetTenantRequest) -> pb.Tenant:
        """Returns what a tenant may do."""
        return await self._whole(request.tenant)

    async def set_tenant(self, call: Call, request: pb.SetTenantRequest) -> pb.Tenant:
        """Changes what a tenant may do."""
        plan = request.plan if request.HasField("plan") else None
        await self._limits.set_tenant(request.tenant, plan, _values(request.limits))
        return await self._whole(request.tenant)

    async def reset_tenant(self, call: Call, request: pb.ResetTenantRequest) -> pb.Tenant:
        """Gives a tenant the limits of everybody."""
        await self._limits.reset_tenant(request.tenant)
        return await self._whole(request.tenant)

    async def list_plans(self, call: Call, request: pb.ListPlansRequest) -> pb.ListPlansResponse:
        """Lists the plans."""
        plans = [pb.Plan(plan=name, limits=pb.LimitValues(**values)) for name, values in await self._limits.plans()]
        return pb.ListPlansResponse(plans=plans)

    async def set_plan(self, call: Call, request: pb.SetPlanRequest) -> pb.Plan:
        """Makes or changes a plan."""
        values = await self._limits.set_plan(request.plan, _values(request.limits))
        return pb.Plan(plan=request.plan, limits=pb.LimitValues(**values))

    async def delete_plan(self, call: Call, request: pb.DeletePlanRequest) -> pb.DeletePlanResponse:
        """Removes a plan."""
        await self._limits.delete_plan(request.plan)
        return pb.DeletePlanResponse()

    async def _whole(self, tenant: str) -> pb.Tenant:
        return _tenant(tenant, *await self._limits.tenant(tenant))


def _tenant(tenant: str, record: TenantRecord, limits: TenantLimits) -> pb.Tenant:
    return pb.Tenant(
        tenant=tenant,
        plan=record.plan,
        overrides=pb.LimitValues(**record.values),
        limits=pb.LimitValues(**asdict(limits)),
    )


def _values(values: pb.LimitValues) -> Values:
    return {field.name: int(value) for field, value in values.ListFields()}
