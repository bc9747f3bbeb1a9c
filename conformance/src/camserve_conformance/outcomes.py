"""What a check may end with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camserve_conformance.answer import Answer
    from camserve_conformance.check import Check


class State(StrEnum):
    """The four ends of a check."""

    PASSED = "passed"
    VIOLATED = "violated"
    # Something else than its sentence stood in the way: what it needs was refused, or came too late.
    BLOCKED = "not run"
    # It does not apply here, or an option that it needs was not given.
    SKIPPED = "skipped"


class ViolationError(Exception):
    """The deployment does not do what the sentence says."""

    def __init__(self, problem: str, answer: Answer | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.answer = answer


class BlockedError(Exception):
    """What the check needs first did not work, so that its sentence was not put to the test."""


class SkippedError(Exception):
    """The sentence does not apply to this deployment, or not with these options."""


@dataclass(frozen=True)
class Outcome:
    """How one check ended; `why` is empty when it passed."""

    check: Check
    state: State
    took_s: float
    why: str = ""
    answer: Answer | None = None
