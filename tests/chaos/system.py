"""The system under faults: a stack, two workers and two couriers beside it, and ways to hurt each part."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.conftest import Stack, start_replica, start_stack, stop_stack

COMPONENTS = ("server", "worker", "courier", "imaging", "valkey", "envoy")
LEASE_S = 2
# Some longer than a lease, so that their holder comes back to work that is another's by now.
PAUSE_S = (0.2, 2.5 * LEASE_S)
_START_AGAIN_S = 0.2
_SETTINGS = {
    "job_lease_s": LEASE_S,
    "torch_threads": 1,
    "imaging_workers": 1,
    "drain_s": 2,
    "webhook_retry_s": 0.2,
    "janitor_interval_s": 1,
}


@dataclass
class Replica:
    """A replica that is started again whenever it ends."""

    stack: Stack
    role: str
    settings: dict[str, object]
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopping.is_set():
            self.process, _ = start_replica(self.stack, roles=self.role, **self.settings)
            self.starts += 1
            self.process.wait()
            self.stopping.wait(_START_AGAIN_S)

    def stop(self) -> None:
        self.stopping.set()
        if self.process:
            self.process.terminate()


class System:
    """Every part that may be hurt, found anew each time because all of them are started again."""

    def __init__(self, stack: Stack, replicas: list[Replica], rng: random.Random) -> None:
        self.stack = stack
        self.replicas = replicas
        self.rng = rng
        self.done: Counter[str] = Counter()

    def processes(self, component: str) -> list[psutil.Process]:
        """Returns the processes that are the component now; none while it is being started again."""
        if component in ("worker", "courier"):
            return [
                psutil.Process(replica.process.pid)
                for replica in self.replicas
                if replica.role == component and replica.process and replica.process.poll() is None
            ]
        found = psutil.Process(self.stack.process.pid).children(recursive=True)
        if component == "imaging":
            for worker in self.processes("worker"):
                found += worker.children(recursive=True)
        return [process for process in found if _is(component, process)]

    def hurt(self, fault: str, component: str) -> None:
        """Kills, restarts (SIGTERM) or pauses (SIGSTOP for a while) one process of a component, waiting for one."""
        while True:
            try:
                victim = self.rng.choice(self.processes(component))
                victim.send_signal({"kill": signal.SIGKILL, "restart": signal.SIGTERM, "pause": signal.SIGSTOP}[fault])
                break
            except (IndexError, psutil.NoSuchProcess):
                time.sleep(0.05)
        if fault == "pause":
            time.sleep(self.rng.uniform(*PAUSE_S))
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGCONT)
        self.done[f"{component} {fault}"] += 1


@contextmanager
def system(folder: Path, place: str, rng: random.Random) -> Iterator[System]:
    """A system whose webhooks may go to `place`."""
    stack = start_stack(folder, roles="api,janitor", webhook_allow=place, **_SETTINGS)
    own = {**_SETTINGS, "webhook_allow": place, "public_url": stack.edge_url}
    replicas = [Replica(stack, role, own) for role in ("worker", "worker", "courier", "courier")]
    threads = [threading.Thread(target=replica.run) for replica in replicas]
    for thread in threads:
        thread.start()
    try:
        yield System(stack, replicas, rng)
    finally:
        for replica in replicas:
            replica.stop()
        for thread in threads:
            thread.join()
        stop_stack(stack)


def _is(component: str, process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    if not command or any(part.endswith("guard.py") for part in command):
        return False
    return {
        "server": command[-1] == "serve",
        "imaging": "imaging_worker" in " ".join(command),
        "valkey": "valkey-server" in command[0],
        "envoy": "envoy" in Path(command[0]).name,
    }[component]
