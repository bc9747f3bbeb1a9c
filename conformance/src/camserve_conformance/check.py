"""Checks, and the sections in which they stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camserve_conformance.kit import Kit

REST, GRPC = "rest", "grpc"
BOTH = (REST, GRPC)

Run = Callable[["Kit"], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """One sentence of the contract, and what proves it.

    `needs` names options without which the check is skipped. `alone` is for those that read a figure which other calls
    of the same tenant would change.
    """

    name: str
    section: Section
    sentence: str
    way: str
    run: Run
    needs: tuple[str, ...] = ()
    alone: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the contract, or the part of it that is about one noun; its name begins the names of its checks."""

    name: str
    title: str
    checks: list[Check] = field(default_factory=list, compare=False, repr=False)

    def check(
        self, sentence: str, *, ways: tuple[str, ...] = (REST,), needs: tuple[str, ...] = (), alone: bool = False
    ) -> Callable[[Run], Run]:
        """Makes a check of a function, for each way on which the sentence holds."""

        def add(run: Run) -> Run:
            self.add(getattr(run, "__name__", ""), sentence, run, ways=ways, needs=needs, alone=alone)
            return run

        return add

    def add(
        self,
        name: str,
        sentence: str,
        run: Run,
        *,
        ways: tuple[str, ...] = (REST,),
        needs: tuple[str, ...] = (),
        alone: bool = False,
    ) -> None:
        """Adds checks of that name: over gRPC it ends in `@grpc`, and `--grpc` is needed."""
        for way in ways:
            full = f"{self.name}.{name}" + ("@grpc" if way == GRPC else "")
            needed = (*needs, "grpc") if way == GRPC else needs
            self.checks.append(Check(full, self, sentence, way, run, needed, alone))
