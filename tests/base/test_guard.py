"""Guarded programs: they end with their parent and with their guard, and only one holds a lock."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import IO, Any

import pytest
from tests.processes import wait_gone

from camserve_server.base import guard
from camserve_server.base.child import Child, ChildError, start_child

PYTHON = [sys.executable, "-I", "-S", "-c"]
READY = "import os, signal, sys, time; os.write(1, b'ready\\n');"
SLEEPER = READY + "signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + "\nwhile True: signal.pause()"
PARENT = """
import asyncio, sys
from pathlib import Path
from camserve_server.base.child import start_child

async def main():
    lock = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    child = await start_child([sys.executable, "-I", "-S", "-c", sys.argv[1]], lock=lock, grace_s=0.2)
    sys.stdout.write(f"{child.pid} {child.guard_pid}\\n")
    sys.stdout.flush()
    await child.wait()

asyncio.run(main())
"""

Start = Callable[..., Coroutine[Any, Any, tuple[Child, IO[bytes]]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a Python program under a guard and waits until it has written a line."""
    children: list[Child] = []
    outputs: list[IO[bytes]] = []

    async def started(code: str, **options: Any) -> tuple[Child, IO[bytes]]:
        reader, writer = os.pipe()
        outputs.append(os.fdopen(reader, "rb"))
        try:
            children.append(await start_child([*PYTHON, code], output=writer, **options))
        finally:
            os.close(writer)
        assert await asyncio.to_thread(outputs[-1].readline) == b"ready\n"
        return children[-1], outputs[-1]

    yield started
    for child in children:
        await child.stop()
    for output in outputs:
        output.close()


def start_parent(code: str, *arguments: Path) -> tuple[subprocess.Popen[str], int, int]:
    """Starts a process that guards a program; returns it and the pids of program and guard."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert parent.stdout is not None
    ready, pids = sorted([parent.stdout.readline(), parent.stdout.readline()], reverse=True)
    assert ready == "ready\n"
    program, its_guard = map(int, pids.split())
    return parent, program, its_guard


def kill(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN], ids=["obedient", "stubborn"])
def test_killed_parent_leaves_no_orphan(code: str) -> None:
    parent, program, its_guard = start_parent(code)
    kill(parent)
    wait_gone(program)
    wait_gone(its_guard)


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN], ids=["obedient", "stubborn"])
async def test_killed_guard_takes_the_program_with_it(start: Start, code: str) -> None:
    child, _ = await start(code)
    os.kill(child.guard_pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    if sys.platform == "linux":
        await asyncio.to_thread(wait_gone, child.pid)
    else:
        os.kill(child.pid, signal.SIGKILL)


def test_killed_parent_and_guard_leave_no_orphan() -> None:
    parent, program, its_guard = start_parent(STUBBORN)
    os.kill(its_guard, signal.SIGKILL)
    kill(parent)
    if sys.platform == "linux":
        wait_gone(program)
    else:
        os.kill(program, signal.SIGKILL)


async def test_what_the_program_leaves_behind_ends_with_it(start: Start) -> None:
    child, output = await start(
        "import os, signal\n"
        "left = os.fork()\n"
        "if left == 0: signal.pause()\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(3))\n"
        "os.write(1, b'ready\\n%d\\n' % left); signal.pause()"
    )
    left = int(await asyncio.to_thread(output.readline))
    assert await child.stop() == 3
    await asyncio.to_thread(wait_gone, left)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_are_passed_on_and_the_program_may_take_its_time(start: Start, number: int) -> None:
    child, output = await start(
        "import os, signal\n"
        f"signal.signal({number}, lambda *_: os.write(1, b'caught\\n'))\n"
        f"signal.signal(signal.SIGTERM if {number} == signal.SIGINT else signal.SIGINT, lambda *_: os._exit(7))\n"
        "os.write(1, b'ready\\n')\n"
        "while True: signal.pause()"
    )
    child.signal(number)
    assert await asyncio.to_thread(output.readline) == b"caught\n"
    assert child.status is None
    child.signal(signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)
    assert await child.wait() == 7


@pytest.mark.parametrize(
    ("end", "status"),
    [("os._exit(0)", 0), ("os._exit(9)", 9), ("os.kill(os.getpid(), 9)", 137), ("os.abort()", 134)],
)
async def test_status_is_the_programs(start: Start, end: str, status: int) -> None:
    child, _ = await start(READY + end)
    assert await asyncio.gather(child.wait(), child.wait()) == [status, status]
    assert child.status == status
    assert await child.stop() == status
    child.signal(signal.SIGTERM)


async def test_stop_kills_a_stubborn_program_after_the_grace(start: Start) -> None:
    child, _ = await start(STUBBORN, grace_s=0.1)
    assert await child.stop() == 128 + signal.SIGKILL
    await asyncio.to_thread(wait_gone, child.pid)


async def test_program_has_an_empty_input_and_no_other_descriptor_of_ours(start: Start) -> None:
    _, output = await start(
        READY + "print(len(sys.stdin.read()), sorted(map(int, os.listdir('/dev/fd')))[:-1], flush=True)"
    )
    # The last one listed is the listing's own.
    assert await asyncio.to_thread(output.readline) == b"0 [0, 1, 2]\n"


async def test_program_is_in_a_session_apart_from_the_terminal(start: Start) -> None:
    child, _ = await start(SLEEPER)
    assert os.getsid(child.pid) == os.getsid(child.guard_pid) == child.guard_pid != os.getsid(0)
    assert os.getpgid(child.pid) == child.pid


async def test_environment_and_folder_are_the_ones_asked_for(start: Start, tmp_path: Path) -> None:
    code = READY + "print(os.environ.get('A'), os.path.basename(os.getcwd()), flush=True)"
    _, output = await start(code, environment={"A": "b"}, folder=tmp_path)
    assert await asyncio.to_thread(output.readline) == f"b {tmp_path.name}\n".encode()


async def test_program_that_cannot_be_executed_is_reported(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for program, why in ((tmp_path / "none", "No such file"), (plain, "Permission denied")):
        with pytest.raises(ChildError, match=why) as caught:
            await start_child([program], output=subprocess.DEVNULL)
        assert caught.value.status == guard.NOT_STARTED_STATUS


async def test_lock_is_refused_to_a_second_and_free_after_the_first(start: Start, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first, _ = await start(SLEEPER, lock=lock)
    with pytest.raises(ChildError, match=f"in use by process {first.pid}, run by process {os.getpid()}") as caught:
        # The holder's parent lives, so waiting would be in vain.
        await start_child(["unused"], lock=lock, lock_wait_s=60, output=subprocess.DEVNULL)
    assert caught.value.status == guard.LOCKED_STATUS
    await first.stop()
    await start(SLEEPER, lock=lock)


async def test_lock_of_a_killed_stack_is_waited_for(start: Start, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    parent, program, _ = await asyncio.to_thread(start_parent, STUBBORN, lock)
    kill(parent)
    child, _ = await start(SLEEPER, lock=lock, lock_wait_s=20)
    assert child.pid != program
    await asyncio.to_thread(wait_gone, program)


async def test_lock_in_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"No such file or directory: .*none"):
        await start_child(["unused"], lock=tmp_path / "none" / "lock", output=subprocess.DEVNULL)


async def test_link_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(ChildError):
        await start_child(["unused"], lock=tmp_path / "lock", output=subprocess.DEVNULL)
    assert not (tmp_path / "target").exists()


def run_script(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_guard_that_waits_for_a_lock_ends_with_its_parent(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    gone.wait()
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{gone.pid} {gone.pid}\n")
        lock.flush()
        waiting = run_script("--lock", lock.name, "--lock-wait-s", "600", "--", "unused", stdin=subprocess.PIPE)
        assert waiting.communicate() == ("", "guard: the parent left while the lock was taken\n")
        assert waiting.returncode == guard.LOCKED_STATUS


@pytest.mark.parametrize(
    "arguments", [[], ["--"], ["program"], ["--lock", "--", "program"], ["--other", "1", "--", "program"]]
)
def test_wrong_use_is_explained(arguments: list[str]) -> None:
    script = run_script(*arguments, stdin=subprocess.PIPE)
    assert script.communicate()[1].startswith("guard: usage: ")
    assert script.returncode == guard.USAGE_STATUS


def test_input_that_is_no_pipe_is_refused() -> None:
    script = run_script("--", "program", stdin=subprocess.DEVNULL)
    assert "must be a pipe" in script.communicate()[1]
    assert script.returncode == guard.USAGE_STATUS


def test_parent_that_never_read_a_word_is_missed_like_any_other() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = run_script("--", *PYTHON, SLEEPER, stdin=theirs)
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        select.select([ours], [], [])
    assert script.wait() == 128 + signal.SIGTERM
    script.communicate()


async def test_missing_folder_is_an_os_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await start_child(["unused"], folder=tmp_path / "none")


def test_end_of_the_thread_that_started_the_guard_is_not_the_end_of_the_parent() -> None:
    scripts: list[subprocess.Popen[str]] = []
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(42))\n"
        "signal.signal(signal.SIGINT, lambda *_: os._exit(43))\n"
        "os.write(1, b'ready\\n')\n"
        "while True: signal.pause()"
    )

    def start() -> None:
        scripts.append(run_script("--", *PYTHON, code, stdin=subprocess.PIPE))
        assert scripts[0].stdout is not None
        assert scripts[0].stdout.readline() == "ready\n"

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    scripts[0].send_signal(signal.SIGINT)
    assert scripts[0].wait() == 43
    scripts[0].communicate()
