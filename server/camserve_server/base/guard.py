"""Runs a program that must not outlive its parent: `python -I -S guard.py [options] -- program args...`

Standard input must be a pipe or socket whose other end only the parent holds: its end of file means that
the parent is gone (or wants the program stopped), and then the program gets SIGTERM and, after a grace,
SIGKILL. On Linux the kernel's parent-death signal stands behind it, and kills the program when the guard
itself is killed; elsewhere a killed guard leaves the program running, with the lock held, so that nothing
starts beside it. SIGTERM and SIGINT are passed on. The exit status is the program's, or 128 + the signal that
ended it.

One line goes back to the parent if standard input is a socket: `started PID`, or `failed STATUS MESSAGE`.

Options: `--grace-s N` (default 5) before SIGKILL; `--lock FILE` holds a lock on FILE as long as guard or
program live, and exits with 75 when somebody else holds it; `--lock-wait-s N` (default 0) waits so long
for a holder whose own parent is gone already.

The file imports the standard library only and no more of it than it needs, because one of these stays
in memory for each guarded program.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
import sys
import time

USAGE_STATUS = 64
LOCKED_STATUS = 75
NOT_STARTED_STATUS = 127
_PR_SET_PDEATHSIG = 1
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1)


class _GuardError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Options:
    def __init__(self, arguments: list[str]) -> None:
        self.lock: str | None = None
        self.lock_wait_s = 0.0
        self.grace_s = 5.0
        try:
            split = arguments.index("--")
            pairs = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
            self.lock = pairs.pop("--lock", None)
            self.lock_wait_s = float(pairs.pop("--lock-wait-s", self.lock_wait_s))
            self.grace_s = float(pairs.pop("--grace-s", self.grace_s))
        except ValueError:
            pairs = {"": ""}
        self.program = arguments[split + 1 :] if not pairs else []
        if not self.program:
            raise _GuardError(USAGE_STATUS, "usage: guard.py [--lock FILE] [--grace-s N] -- program args...")


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send this process a signal once its parent has ended, where the kernel is Linux."""
    if sys.platform == "linux":
        import ctypes

        # Fails only on a bad argument; the pipe is there in any case.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


class _Lock:
    """A lock on a file that says who holds it: the pid of the guarded program and of the guard's parent."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def take(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not self._try_take():
            holder, parent = self._holder()
            if time.monotonic() >= deadline or _is_alive(parent):
                message = f"{self._path} is in use by process {holder}, run by process {parent}"
                raise _GuardError(LOCKED_STATUS, message)
            # Standard input tells meanwhile whether anybody still waits for the lock.
            if select.select([0], [], [], 0.02)[0] and _parent_left():
                raise _GuardError(LOCKED_STATUS, "the parent left while the lock was taken")

    def name_holder(self, pid: int) -> None:
        os.pwrite(self.descriptor, f"{pid:<10} {os.getppid():<10}\n".encode(), 0)

    def _try_take(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        self.name_holder(os.getpid())
        return True

    def _holder(self) -> tuple[int, int]:
        fields = os.pread(self.descriptor, 64, 0).split()
        return (int(fields[0]), int(fields[1])) if len(fields) == 2 else (0, 0)


def _is_alive(pid: int) -> bool:
    if pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(program: list[str], lock: _Lock | None) -> int:
    guard = os.getpid()
    refusal, report = os.pipe()  # Closed by a successful exec.
    # Held back over the fork: a signal passed on at once would meet the guard's handlers in the program.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.close(report)
        message = os.read(refusal, 1024).decode(errors="replace")
        os.close(refusal)
        if message:
            os.waitpid(pid, 0)
            raise _GuardError(NOT_STARTED_STATUS, message)
        return pid
    try:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(NOT_STARTED_STATUS)
        # A group of its own, so that what the program leaves behind can be found and ended with it.
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (*_HANDLED, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if lock is not None:
            # The program holds the lock too: when guard and program are killed, nobody gets the lock
            # before the last of them is gone.
            os.set_inheritable(lock.descriptor, True)
        os.execvp(program[0], program)
    except OSError as error:
        os.write(report, f"{program[0]} cannot be started: {error.strerror}".encode())
    finally:
        os._exit(NOT_STARTED_STATUS)


class _Guard:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._parent = os.getppid()
        self._pid = 0
        self._signals: list[int] = []
        self._wakeup, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in _HANDLED:
            signal.signal(number, self._note)
        # The death signal is SIGUSR1 and only asks for a look at the parent: the kernel sends it when the
        # parent's thread that started the guard ends, which need not be the end of the parent.
        die_with_parent(signal.SIGUSR1)

    def run(self, program: list[str], lock: _Lock | None) -> int:
        self._pid = _start(program, lock)
        if lock is not None:
            lock.name_holder(self._pid)
        _tell_parent(f"started {self._pid}")
        kill_at: float | None = None
        pipe_open = True
        while (status := self._status()) is None:
            wait_s = None if kill_at is None else max(kill_at - time.monotonic(), 0.0)
            ready = select.select([self._wakeup, 0] if pipe_open else [self._wakeup], [], [], wait_s)[0]
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
            if 0 in ready and _parent_left():
                pipe_open = False
            while self._signals:
                number = self._signals.pop(0)
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._send(number)
            if kill_at is None and (not pipe_open or os.getppid() != self._parent):
                pipe_open = False
                kill_at = time.monotonic() + self._grace_s
                self._send(signal.SIGTERM)
            elif kill_at is not None and time.monotonic() >= kill_at:
                self._send(signal.SIGKILL)
                kill_at = time.monotonic() + 1.0
        return status

    def _note(self, number: int, _: object) -> None:
        self._signals.append(number)

    def _send(self, number: int) -> None:
        os.kill(self._pid, number)

    def _status(self) -> int | None:
        pid, raw = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        with contextlib.suppress(OSError):  # Nothing of the group is left, as it should be.
            os.killpg(self._pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(raw)
        return code if code >= 0 else 128 - code


def _parent_left() -> bool:
    try:
        return not os.read(0, 4096)
    except OSError:
        return True  # A parent that never read our line leaves a reset instead of an end of file.


def _tell_parent(line: str) -> None:
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        with contextlib.suppress(OSError):  # The parent is gone, which the end of file will say.
            os.write(0, line.encode() + b"\n")


def main(arguments: list[str]) -> int:
    """Runs the guard and returns its exit status."""
    try:
        options = _Options(arguments)
        kind = os.fstat(0).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            raise _GuardError(USAGE_STATUS, "standard input must be a pipe that the parent holds open")
        lock = None
        if options.lock is not None:
            lock = _Lock(options.lock)
            lock.take(options.lock_wait_s)
        return _Guard(options.grace_s).run(options.program, lock)
    except _GuardError as error:
        status, message = error.status, str(error)
    except OSError as error:
        status, message = NOT_STARTED_STATUS, f"{error.strerror}: {error.filename}"
    _tell_parent(f"failed {status} {message}")
    os.write(2, f"guard: {message}\n".encode())
    return status


if __name__ == "__main__":
    # Not sys.exit: on its way out Python takes the handlers away, and a parent that dies at that moment
    # would change the status.
    os._exit(main(sys.argv[1:]))
