"""The command line, as tests run it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios

from clients.python.tests.pictures import STAR

PROGRAM = [sys.executable, "-c", "from camserve_client.cli import main; main()"]


class Cam:
    """Runs the command line in a folder of its own."""

    def __init__(self, folder, environment):
        self.folder = folder
        inherited = {
            name: value
            for name, value in os.environ.items()
            # The width is a terminal's own: xdist sets one for its processes.
            if not name.startswith(("CAM_", "KITTY", "TERM", "COLUMNS", "LINES"))
        }
        self.environment = inherited | {"CAM_LOGIN_FILE": str(folder / "login" / "login.json")} | environment

    def __call__(self, *arguments, code=0, given=None, **environment):
        done = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            input=given,
            capture_output=True,
            text=not isinstance(given, bytes),
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def json(self, *arguments, **more):
        return [json.loads(line) for line in self("--json", *arguments, **more).stdout.splitlines()]


def ready(stack, folder, tenant):
    """The command line in a folder with `star.png`, for a tenant of that stack."""
    shutil.copy(STAR, folder / "star.png")
    return Cam(folder, {"CAM_ADDRESS": stack.edge_url, "CAM_TOKEN": stack.token(tenant=tenant), "CAM_MODEL": "shapes"})


def in_terminal(cam, *arguments, code=0, columns=80, **environment):
    """Runs the command in a terminal of that width, and returns what that was told to show."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = cam.environment | {"TERM": "xterm-256color"} | environment
    process = subprocess.Popen(
        [*PROGRAM, *arguments], cwd=cam.folder, env=known, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        # So ends a terminal whose program has left.
        pass
    finally:
        os.close(ours)
    assert process.wait() == code, shown
    return shown


def lines_in_terminal(cam, *arguments, **options):
    """Runs the command in a terminal, and returns the lines that stand there, without colours."""
    shown = in_terminal(cam, *arguments, **options).decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "").split("\n")
