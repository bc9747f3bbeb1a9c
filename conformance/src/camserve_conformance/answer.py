"""An answer, over REST and over gRPC alike, and the words in which checks judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camserve_conformance.catalogue import CATALOGUE
from camserve_conformance.outcomes import BlockedError, ViolationError

OK = "OK"


@dataclass(frozen=True)
class Sent:
    """A request as it is shown in the report."""

    line: str
    headers: Mapping[str, str]
    body: str = ""


@dataclass(frozen=True)
class Answer:
    """What came back.

    `status` is the HTTP status, or the name of the gRPC code. `headers` have lower-case names; over gRPC they hold both
    kinds of metadata. `body` is the JSON value, over gRPC the message in proto3 JSON; of a stream it is the list of its
    events; None where there is neither. `details` are the parts of `google.rpc.Status`, each with its `@type`;
    those of errors that the edge itself makes `may_lack` them.
    """

    sent: Sent
    status: int | str
    headers: Mapping[str, str]
    content: bytes = b""
    body: Any = None
    details: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    may_lack_details: bool = False

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.status == OK if isinstance(self.status, str) else 200 <= self.status < 300

    @property
    def native(self) -> bool:
        """Whether the call was made over gRPC."""
        return isinstance(self.status, str)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; empty where there is none."""
        if self.native:
            return next((each for each in self.details if each["@type"].endswith("camserve.v1.ErrorObject")), {})
        found = self.body.get("error") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def code(self) -> str:
        """The error's code; empty where there is none."""
        return str(self.error.get("code", ""))

    @property
    def request_id(self) -> str:
        """The id under which the service knows the call; empty where the answer has none."""
        return self.headers.get("request-id", "")

    def need(self) -> Any:
        """Returns the body; raises BlockedError when the call failed, because its success is not what is checked."""
        if not self.ok:
            raise BlockedError(f"{self.sent.line} answered {self.status} {self.code or self.message}".rstrip())
        return self.body

    def expect(self, condition: object, problem: str) -> None:
        """Raises ViolationError unless the condition holds."""
        if not condition:
            raise ViolationError(problem, self)

    def expect_equal(self, what: str, got: object, *wanted: object) -> None:
        """Raises ViolationError unless `got` is one of those wanted."""
        if got not in wanted:
            raise ViolationError(f"{what} is {got!r}, not {' or '.join(map(repr, wanted))}", self)

    def expect_status(self, wanted: int) -> None:
        """Raises ViolationError unless this is that success; over gRPC every success is OK."""
        self.expect_equal("the status", self.status, OK if self.native else wanted)

    def expect_refusal(self, *codes: str) -> None:
        """Raises ViolationError unless the call was refused with one of these codes, as section 6 has it."""
        rows = [CATALOGUE[code] for code in codes]
        if self.native:
            self.expect_equal("the gRPC code", self.status, *(code for row in rows for code in row.grpc))
            if self.may_lack_details and not self.details:
                return
        else:
            self.expect_equal("the status", self.status, *(row.status for row in rows))
        self.expect_equal("the error's code", self.code, *codes)
        row = CATALOGUE[self.code]
        self.expect_equal("the error's type", self.error.get("type"), row.type)
        self.expect_equal("the error's status", self.error.get("status"), row.status)
