"""A Ray cluster of several nodes on this machine, and engines whose models run on it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_stack

from camserve_server.base.config import prepare_ray
from camserve_server.engine.cluster.settings import ClusterSettings
from camserve_server.engine.engine import Engine, EngineSettings

__all__ = ["make_stack"]

# Before anything imports it.
prepare_ray(own=True)

StartEngine = Callable[..., AbstractAsyncContextManager[Engine]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray leaves sockets and processes to the garbage collector, and nodes take long to start."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
        item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:ray"))
        item.add_marker(pytest.mark.timeout(240))


class Nodes:
    """A cluster; its head takes no actors, so that every other node may be killed."""

    def __init__(self, fault: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            self._cluster: Any = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False},
            )
        self.address: str = self._cluster.address
        self.fault = fault
        self._nodes: list[Any] = []

    def at_least(self, count: int) -> None:
        """Adds nodes until there are so many."""
        self.add(max(0, count - len(self._nodes)))

    def kill_all(self) -> None:
        """Kills every node but the head."""
        for pid in self.pids():
            self.kill(pid)

    def add(self, count: int = 1) -> None:
        """Adds nodes with room for one actor each."""
        for _ in range(count):
            self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=100 << 20))

    def pids(self) -> list[int]:
        """Returns the process of each node's raylet."""
        return [node.all_processes["raylet"][0].process.pid for node in self._nodes]

    def kill(self, pid: int) -> None:
        """Kills all of the node that has this raylet, at once."""
        node = next(node for node in self._nodes if node.all_processes["raylet"][0].process.pid == pid)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """Ends every node."""
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster without room; a test adds what it needs."""
    fault = tmp_path_factory.mktemp("nodes") / "fault"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_FAULT", str(fault))
        started = Nodes(fault)
        yield started
        started.close()


@asynccontextmanager
async def ray_engine(models_dir: Path, nodes: Nodes, **settings: Any) -> AsyncIterator[Engine]:
    """An engine on the cluster; `min_actors` and `max_actors` are those of each version."""
    cluster = ClusterSettings(
        address=nodes.address,
        min_actors=settings.pop("min_actors", 1),
        max_actors=settings.pop("max_actors", 1),
        cpus=settings.pop("cpus", 1.0),
    )
    # A busy machine takes its time.
    settings = {"load_wait_s": 200.0} | settings
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, cluster=cluster, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
