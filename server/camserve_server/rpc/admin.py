"""AdminService: what tenants may do, which versions answer them, and how those do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

from camserve.v1 import admin_pb2 as pb
from camserve.v1 import model_routes_pb2, model_watch_pb2
from camserve_server.core.limits import LimitAdmin, TenantLimits
from camserve_server.core.model_route_changes import RouteChanges
from camserve_server.core.model_watch import ModelWatch
from camserve_server.rpc.call import Call
from camserve_server.rpc.model_routes import change_message, edit_of, routes_message
from camserve_server.rpc.model_watch import watch_message
from camserve_server.stores.limits import TenantRecord, Values

_INTERVAL_S = 2


class AdminServicer:
    """Converts between messages and the rules in core/limits, core/model_route_changes and core/model_watch."""

    def __init__(self, limits: LimitAdmin, routes: RouteChanges, watch: ModelWatch) -> None:
        self._limits = limits
        self._routes = routes
        self._watch = watch

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

    async def list_model_routes(
        self, call: Call, request: model_routes_pb2.ListModelRoutesRequest
    ) -> model_routes_pb2.ListModelRoutesResponse:
        """Lists the routes of every model."""
        models = await self._routes.models()
        return model_routes_pb2.ListModelRoutesResponse(routes=[routes_message(*entry) for entry in models.items()])

    async def get_model_routes(
        self, call: Call, request: model_routes_pb2.GetModelRoutesRequest
    ) -> model_routes_pb2.GetModelRoutesResponse:
        """Returns a model's routes and their last changes."""
        record, made = await self._routes.of(request.model)
        return model_routes_pb2.GetModelRoutesResponse(
            routes=routes_message(request.model, record), changes=[change_message(each) for each in made]
        )

    async def change_model_routes(
        self, call: Call, request: model_routes_pb2.ChangeModelRoutesRequest
    ) -> model_routes_pb2.ChangeModelRoutesResponse:
        """Changes a model's routes."""
        before, after = await self._routes.make(
            request.model,
            edit_of(request),
            by=call.identity.subject,
            why=request.why,
            expected=request.expected_revision if request.HasField("expected_revision") else None,
        )
        return model_routes_pb2.ChangeModelRoutesResponse(
            before=routes_message(request.model, before), after=routes_message(request.model, after)
        )

    async def watch_model(
        self, call: Call, request: model_watch_pb2.WatchModelRequest
    ) -> AsyncIterator[model_watch_pb2.WatchModelResponse]:
        """Yields the figures of a model's versions until the caller leaves."""
        interval_s = request.interval_s if request.HasField("interval_s") else _INTERVAL_S
        while True:
            record, made = await self._routes.of(request.model)
            seen = await self._watch.seen(request.model, record)
            yield watch_message(request.model, seen, next(iter(made), None))
            await asyncio.sleep(interval_s)

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
