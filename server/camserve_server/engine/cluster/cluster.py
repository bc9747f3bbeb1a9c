"""A Ray cluster as the place where model versions run."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camserve_server.base.config import prepare_ray
from camserve_server.base.errors import OperatorError
from camserve_server.engine.batcher import Batcher
from camserve_server.engine.cluster.actor import ModelActor, Order
from camserve_server.engine.cluster.settings import ClusterSettings
from camserve_server.engine.place import OnEnd
from camserve_server.engine.runner import Queue, Runner

_NAMESPACE = "camserve"
_LOOPBACK = "127.0.0.1"
# Batches lie in it for milliseconds; Ray would take a third of the machine's memory.
_OBJECT_STORE_BYTES = 256 << 20


class Cluster:
    """Gives each version actors on the nodes of a cluster.

    The nodes must have the program and, at the same paths, the model folders. One process has one connection to Ray.
    """

    # Each actor has its share of a device to itself.
    turn_s = 0.0

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        device: str,
        threads: int | None,
        max_batch: int,
        weights_dir: Path | None,
        earlier: Callable[[Path], list[Path]],
        pass_deadline_s: float,
    ) -> None:
        """Raises OperatorError where Ray is not installed."""
        prepare_ray(own=not settings.address)
        try:
            import ray
        except ImportError:
            raise OperatorError("CAMSERVE_ENGINE=ray needs Ray: pip install 'camserve[ray]'") from None
        self._ray = ray
        self._settings = settings
        self._device = device
        self._threads = threads or max(1, int(settings.cpus))
        self._max_batch = max_batch
        self._weights_dir = weights_dir
        self._earlier = earlier
        self._pass_deadline_s = pass_deadline_s
        self._temporary: Path | None = None
        self._connecting = threading.Lock()
        # A cluster elsewhere leaves this machine's cores to the decoders.
        self.shares_cores = not settings.address

    async def start(self) -> None:
        """Connects to the cluster or starts one; raises OperatorError when there is none at the address."""
        await asyncio.to_thread(self._connect)
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler, put below Python's, would end the process after a trace.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            signal.siginterrupt(signal.SIGTERM, False)

    async def settle(self) -> None:
        """The actors look after themselves."""

    async def close(self) -> None:
        """Leaves the cluster, which ends the actors, and one that was started here."""
        await asyncio.to_thread(self._disconnect)

    def memory_bytes(self) -> dict[str, int]:
        """Nothing: the devices are elsewhere."""
        return {}

    def runner(self, queue: Queue, batcher: Batcher, on_end: OnEnd, monotonic: Callable[[], float]) -> Runner:
        """Returns what runs one version on its actors."""
        # They import Ray, which must have been told its environment before.
        from camserve_server.engine.cluster.pool import ActorPool
        from camserve_server.engine.cluster.runner import ClusterRunner

        def new_pool(folder: Path) -> ActorPool:
            return ActorPool(
                lambda: self._actor(folder),
                least=self._settings.min_actors,
                most=self._settings.max_actors,
                waits=lambda: batcher.depth(queue) > 0,
            )

        return ClusterRunner(
            queue, batcher, new_pool, pass_deadline_s=self._pass_deadline_s, on_end=on_end, monotonic=monotonic
        )

    def _actor(self, folder: Path) -> Any:
        order = Order(
            folder,
            self._device,
            self._threads,
            self._max_batch,
            self._weights_dir,
            tuple(self._earlier(folder)),
        )
        # Here there is no choice of nodes, and as many versions as in process share the cores as the kernel sees fit.
        cpus = self._settings.cpus if self._settings.address else 0
        remote = self._ray.remote(ModelActor)
        return remote.options(num_cpus=cpus, num_gpus=self._settings.gpus, max_restarts=0).remote(order)

    def _connect(self) -> None:
        with self._connecting:
            options: dict[str, Any] = {"namespace": _NAMESPACE, "log_to_driver": False, "configure_logging": False}
            if self._settings.address:
                try:
                    self._ray.init(address=self._settings.address, **options)
                except (ConnectionError, ValueError, RuntimeError) as error:
                    raise OperatorError(f"no Ray cluster at CAMSERVE_RAY_ADDRESS={self._settings.address}") from error
                return
            # Ray puts sockets there, whose paths may have 107 bytes.
            self._temporary = Path(tempfile.mkdtemp(prefix="camserve-ray-"))
            self._ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=1,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address=_LOOPBACK,
                _temp_dir=str(self._temporary),
                **options,
            )

    def _disconnect(self) -> None:
        with self._connecting:
            self._ray.shutdown()
            if self._temporary:
                shutil.rmtree(self._temporary, ignore_errors=True)
