"""A cluster of Valkeys on loopback, each primary with a replica if wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_ports
from tests.faults.valkey import Valkey, valkey

_PRIMARIES = 3
_SLOTS = 16384
_FORMED_WITHIN_S = 60.0


@dataclass
class Cluster:
    """Its nodes; replica n follows primary n at first."""

    primaries: list[Valkey]
    replicas: list[Valkey]

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{node.port}" for node in self.primaries)
        return f"redis://{nodes}?cluster=true"

    def wait_formed(self) -> None:
        """Returns once every node agrees that every slot is served."""
        nodes = self.primaries + self.replicas
        deadline = time.monotonic() + _FORMED_WITHIN_S
        while not all(
            node.tells("CLUSTER", "INFO", "cluster_state:ok", f"cluster_known_nodes:{len(nodes)}") for node in nodes
        ) or not all(node.tells("INFO", "replication", "master_link_status:up") for node in self.replicas):
            assert time.monotonic() < deadline, "the cluster does not form"
            time.sleep(0.05)


@contextmanager
def cluster(folder: Path, *, replicated: bool = False, **options: object) -> Iterator[Cluster]:
    """Starts the nodes and joins them."""
    count = 2 * _PRIMARIES if replicated else _PRIMARIES
    with ExitStack() as running:
        nodes = []
        for number, bus_port in enumerate(free_ports(count)):
            own = {"cluster-enabled": "yes", "cluster-port": bus_port, "cluster-node-timeout": 1500, **options}
            nodes.append(running.enter_context(valkey(folder / str(number), **own)))
        primaries, replicas = nodes[:_PRIMARIES], nodes[_PRIMARIES:]
        for number, node in enumerate(primaries):
            first, last = number * _SLOTS // _PRIMARIES, (number + 1) * _SLOTS // _PRIMARIES - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.options["cluster-port"])
        found = Cluster(primaries, replicas)
        for primary, replica in zip(primaries, replicas, strict=False):
            identity = primary.ask("CLUSTER", "MYID")
            while not replica.tells("CLUSTER", "NODES", identity.decode()):
                time.sleep(0.05)
            replica.ask("CLUSTER", "REPLICATE", identity)
        found.wait_formed()
        yield found
