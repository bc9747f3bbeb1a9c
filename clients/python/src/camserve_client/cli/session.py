"""What every command shares: the client, the consoles, and how a failure ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from camserve_client.auth import ClientCredentials
from camserve_client.cli import login as logins
from camserve_client.cli import shown
from camserve_client.client import AsyncClient
from camserve_client.errors import CamserveError

T = TypeVar("T")
SOME_FAILED, USAGE, REFUSED, NOT_ALLOWED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130


@dataclass(frozen=True, slots=True)
class Session:
    """The options that come before a command."""

    address: str | None
    token: str | None = field(repr=False)
    ca_file: Path | None
    as_json: bool
    timeout_s: float
    out: Console = field(default_factory=Console)
    err: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self, work: Callable[[AsyncClient], Awaitable[T]], *, credentials: ClientCredentials | None = None) -> T:
        """Returns what `work` does with a client, of the login or of `credentials`.

        A failure is said, and ends the program with its exit code.
        """

        async def with_client() -> T:
            async with self._client(credentials) as client:
                return await work(client)

        return self.guarded(lambda: asyncio.run(with_client()))

    def guarded(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns; a failure is said, and ends the program with its exit code."""
        try:
            return work()
        except CamserveError as error:
            self.say_error(error)
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:
            # Whoever read the output has left, which Typer knows how to end with.
            raise
        except (OSError, TypeError, ValueError) as error:
            named = isinstance(error, OSError) and error.filename
            self._complain(f"{named}: {getattr(error, 'strerror', '')}" if named else str(error))
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def show(self, value: Any, made: Callable[[], Any]) -> None:
        """Prints a value as JSON, or what `made` makes of it for people."""
        if self.as_json:
            self.line(value)
        else:
            self.out.print(made())

    def line(self, value: Any) -> None:
        """Prints a value as one line of JSON."""
        sys.stdout.write(shown.line(value) + "\n")
        sys.stdout.flush()

    def say_error(self, error: CamserveError, about: str | None = None) -> None:
        """Says an error, of one thing of many, where it does not mix with answers."""
        if self.as_json:
            named = {} if about is None else {"id": about}
            sys.stderr.write(shown.line(named | {"error": shown.error_fields(error)}) + "\n")
        else:
            self._complain(f"{about}: {shown.error_text(error)}" if about else shown.error_text(error))
            if error.code == "auth.missing_token":
                self.hint("Sign in with `cam login`, or set CAM_TOKEN.")

    def hint(self, text: str, **fields: str) -> None:
        """Says what may be done next, in one line that can be copied; for programs its `fields`."""
        if self.as_json:
            sys.stderr.write(shown.line(fields) + "\n")
        else:
            self.err.print(text, markup=False, highlight=False, soft_wrap=True)

    def _complain(self, text: str) -> None:
        self.err.print(text, style="red", markup=False, highlight=False, soft_wrap=True)

    def _client(self, credentials: ClientCredentials | None) -> AsyncClient:
        if credentials is not None:
            address = self.address or logins.DEFAULT_ADDRESS
            return AsyncClient(address, credentials=credentials, ca_file=self.ca_file, timeout_s=self.timeout_s)
        # A file that is damaged matters only to who needs it.
        kept = None if self.token and self.address else logins.load()
        if self.token or kept is None or (self.address and self.address.rstrip("/") != kept.address.rstrip("/")):
            address = self.address or (kept.address if kept else logins.DEFAULT_ADDRESS)
            return AsyncClient(address, token=self.token, ca_file=self.ca_file, timeout_s=self.timeout_s)
        kept_credentials = ClientCredentials(kept.client_id, kept.client_secret, kept.scopes)
        ca_file = self.ca_file or kept.ca_file
        return AsyncClient(kept.address, credentials=kept_credentials, ca_file=ca_file, timeout_s=self.timeout_s)


def exit_code(error: CamserveError) -> int:
    """Returns how a program hears of an error: may it help to try later, to sign in, or neither."""
    if error.status in (401, 403):
        return NOT_ALLOWED
    return UNAVAILABLE if error.retryable or error.status >= 500 else REFUSED
