from __future__ import annotations

import pytest
from tests.clock import FakeClock
from tests.engine.tiny import write_model

from camserve_server.core.model_route_changes import RouteChanges
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.stores.durability import Disk
from camserve_server.stores.model_routes import RouteRecords


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version, top in (("1", ""), ("2", 'aliases = ["stable"]'), ("3", 'aliases = ["next"]')):
        write_model(folder, version=version, top=top)
    write_model(folder, version="broken", weights='file = "none.safetensors"', top="")
    return folder


@pytest.fixture
async def engine(models_dir):
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, max_batch=2))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def replica(redis, engine):
    """Makes a replica's routes, and what changes them."""

    def make(client=redis):
        records = RouteRecords(client, Disk())
        routes = ModelRoutes(records, engine)
        return routes, RouteChanges(records, routes, engine, FakeClock())

    return make
