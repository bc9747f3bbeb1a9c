"""What a run is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# What each option is for, as the report says where a check lacks it.
NEEDS = {
    "grpc": "--grpc HOST:PORT",
    "native_port": "--grpc HOST:PORT of the service's own port, without --grpc-edge",
    "other_token": "--other-token, a token of a second tenant",
    "narrow_token": "--narrow-token, a token of the same tenant with the scope jobs.read only",
    "expired_token": "--expired-token, a token that was valid once",
    "slow_token": "--slow-token, a token of a tenant whose burst is at most 100 requests, which is used up",
    "client": "--client-id and --client-secret",
    "receive": "--receive HOST:PORT, an address of this machine that the deployment reaches",
    "origin": "--origin, one that the deployment allows",
}


@dataclass(frozen=True)
class Options:
    """Where the deployment is, who asks, and how much time there is; times are in seconds.

    `public_url` is what links begin with, the address itself by default. `receive` is where events are waited for,
    `receive_url` how the deployment reaches that.
    """

    url: str
    token: str = field(default="", repr=False)
    other_token: str = field(default="", repr=False)
    narrow_token: str = field(default="", repr=False)
    expired_token: str = field(default="", repr=False)
    slow_token: str = field(default="", repr=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    grpc: str = ""
    grpc_edge: bool = False
    public_url: str = ""
    model: str = ""
    receive: str = ""
    receive_url: str = ""
    origin: str = ""
    insecure: bool = False
    ca: Path | None = None
    check_timeout_s: float = 60.0
    within_s: float = 900.0
    concurrency: int = 4
    only: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()

    def has(self, need: str) -> bool:
        """Whether what a check needs was given."""
        if need == "client":
            return bool(self.client_id and self.client_secret)
        if need == "native_port":
            return bool(self.grpc) and not self.grpc_edge
        return bool(getattr(self, need))

    @property
    def links(self) -> str:
        """What every link begins with."""
        return (self.public_url or self.url).rstrip("/")

    @property
    def secrets(self) -> list[str]:
        """What no report may show."""
        tokens = [self.token, self.other_token, self.narrow_token, self.expired_token, self.slow_token]
        # Without the space around them: an error's text may show it escaped.
        return [secret for each in (*tokens, self.client_secret) if (secret := each.strip())]
