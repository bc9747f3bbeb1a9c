"""`cam`, the command line of the client."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Runs the command line, or says what to install where its parts are missing."""
    for stream in (sys.stdout, sys.stderr):
        # A question mark where the output has no such character: what was paid for is not lost over it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            from camserve_client.cli.app import run
        except ModuleNotFoundError as error:
            sys.exit(f"cam needs {error.name}: pip install 'camserve-client[cli]'")
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # Commands say themselves what they could not open; this is what they print, as to a full disk.
        sys.stderr.write(f"cam: {error.strerror or error}\n")
        sys.exit(2)
