"""What every command shares: the client, the consoles, and how a failure ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
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
from camserve_client.errors import CONNECTION_FAILED, TIMEOUT, CamserveError
from camserve_client.retry import Backoff

T = TypeVar("T")
SOME_FAILED, USAGE, REFUSED, NOT_ALLOWED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130
# How long commands wait for an answer: those that only ask, and those that send images or wait for what others do.
LOOKUP_S, SENDING_S = 15.0, 60.0
_NOTICED_S = 2.0
_ENDLESS = 100_000


@dataclass(frozen=True, slots=True)
class Noticed(Backoff):
    """Waits as any backoff, and tells `notice` of failures that are not over at once."""

    notice: Callable[[CamserveError | None], None] = lambda _: None
    since: float = field(default_factory=time.monotonic)

    def window_s(self, failures: int) -> float:
        """Returns the longest random wait after that many failures."""
        # Whoever waits does so while the failure is handled.
        failed = error if isinstance(error := sys.exception(), CamserveError) else None
        asked_s = failed.retry_after_s or 0.0 if failed else 0.0
        if failures > 1 or max(asked_s, time.monotonic() - self.since) >= _NOTICED_S:
            self.notice(failed)
        return Backoff.window_s(self, failures)


@dataclass(frozen=True, slots=True)
class Session:
    """The options that come before a command."""

    address: str | None
    token: str | None = field(repr=False)
    ca_file: Path | None
    as_json: bool
    timeout_s: float | None
    out: Console = field(default_factory=lambda: _unbounded(Console()))
    err: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def where(self) -> str:
        """The address that is called: as it was given, or that of the login."""
        kept = None if self.address else self.kept()
        return self.address or (kept.address if kept else logins.DEFAULT_ADDRESS)

    def kept(self) -> logins.Login | None:
        """Returns the login, or None where there is none that can be read."""
        try:
            return logins.load()
        except (OSError, ValueError):
            return None

    def run(
        self,
        work: Callable[[AsyncClient], Awaitable[T]],
        *,
        login: logins.Login | None = None,
        patience_s: float = LOOKUP_S,
    ) -> T:
        """Returns what `work` does with a client, of the kept login or of the one that is given.

        Calls take `patience_s` at most unless the options say another time. A failure is said, and ends the program
        with its exit code.
        """

        async def with_client() -> T:
            async with self._client(login, patience_s if self.timeout_s is None else self.timeout_s) as client:
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
            self.complain(f"{os.fsdecode(named)}: {getattr(error, 'strerror', '')}" if named else str(error))
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def show(self, value: Any, made: Callable[[], Any]) -> None:
        """Prints a value as JSON, or what `made` makes of it for people."""
        if self.as_json:
            self.line(value)
        else:
            told = made()
            if isinstance(told, str):
                # What the service or the system named: no markup, and nothing that commands the terminal.
                self.out.print(shown.printable(told, kept="\n"), markup=False, highlight=False, soft_wrap=True)
            else:
                self.out.print(told)

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
            self.complain(f"{about}: {shown.error_text(error)}" if about else shown.error_text(error))
            if advice := self._advice(error):
                self.hint(advice)

    def hint(self, text: str, **fields: str) -> None:
        """Says what may be done next, in one line that can be copied; for programs its `fields`."""
        if self.as_json:
            sys.stderr.write(shown.line(fields) + "\n")
        else:
            self.err.print(shown.printable(text), markup=False, highlight=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """Says what was refused here."""
        if self.as_json:
            self.say_error(CamserveError(shown.USAGE_INVALID, text))
        else:
            self.err.print(shown.printable(text), style="red", markup=False, highlight=False, soft_wrap=True)

    def _advice(self, error: CamserveError) -> str | None:
        """Returns what may help against an error, where that is in the caller's hands."""
        if error.code == "auth.missing_token":
            return "Sign in with `cam login`, or set CAM_TOKEN."
        if error.status == 401:
            given = "Give a new token with --token or CAM_TOKEN, or do without and sign in with `cam login`."
            return given if self.token and error.code.startswith("auth.") else "Sign in again with `cam login`."
        unanswered = error.code == TIMEOUT and error.request_id is None
        if unanswered or error.code == CONNECTION_FAILED:
            return f"Is the service running at {self.where}? --address or CAM_ADDRESS names another place."
        return None

    def _client(self, login: logins.Login | None, timeout_s: float) -> AsyncClient:
        said = False

        def notice(error: CamserveError | None) -> None:
            nonlocal said
            if not said:
                busy = error is not None and error.code not in (CONNECTION_FAILED, TIMEOUT)
                why = f"answers {error.code}" if error and busy else "cannot be reached"
                self.hint(f"{self.where} {why}; trying again …", retrying=self.where)
                said = True

        def client(address: str, ca_file: Path | str | None, **who: Any) -> AsyncClient:
            return AsyncClient(address, ca_file=ca_file, timeout_s=timeout_s, backoff=Noticed(notice=notice), **who)

        if login is None:
            # A file that is damaged matters only to who needs it.
            login = None if self.token and self.address else logins.load()
            elsewhere = login and self.address and self.address.rstrip("/") != login.address.rstrip("/")
            if self.token or login is None or elsewhere:
                return client(self.where, self.ca_file, token=self.token)
        credentials = ClientCredentials(login.client_id, login.client_secret, login.scopes)
        return client(login.address, self.ca_file or login.ca_file, credentials=credentials)


def _unbounded(console: Console) -> Console:
    """Returns a console for the same output, of which the lines have no end where that is no terminal."""
    return console if console.is_terminal else Console(width=_ENDLESS)


def exit_code(error: CamserveError) -> int:
    """Returns how a program hears of an error: may it help to try later, to sign in, or neither."""
    if error.status in (401, 403):
        return NOT_ALLOWED
    return UNAVAILABLE if error.retryable or error.status >= 500 else REFUSED
