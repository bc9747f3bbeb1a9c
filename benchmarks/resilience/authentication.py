"""What the time of an answer tells of another tenant's ids, and whether a hostile token is ever taken."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import time
from contextlib import closing
from dataclasses import asdict, dataclass

import grpc
import jwt
from tests.tokens import Signer, fine, hostile

from benchmarks import picture
from benchmarks.report import Verdict, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, Service
from camserve.v1 import models_pb2, models_pb2_grpc
from camserve_server.base.clock import SystemClock
from camserve_server.base.ids import new_id
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.stores.keyring import KeyRing

_ROUNDS, _QUICK_ROUNDS = 500, 50
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Row:
    """Medians of the answers to another tenant's id and to one that never was, and of their difference in a round.

    The last one is what a busy machine disturbs least: both answers of a round have the same luck.
    """

    kind: str
    rounds: int
    foreign_ms: float
    unknown_ms: float
    apart_ms: float


def measure(place: Place, plan: Plan) -> Findings:
    """Ids over REST, in turns, and tokens at the edge and on the gRPC port."""
    place.progress("authentication: starting")
    folder = place.folder / "authentication"
    with Service(folder, place.models_dir) as service:
        place.progress("authentication: ids of another tenant")
        rows = _rows(plan, service)
        place.progress("authentication: hostile tokens")
        keys = KeyRing(folder / "data" / "keys" / "tokens.json", clock=SystemClock())
        taken = _taken(service, keys)
    print(
        table(
            "An id of another tenant and one that never was, by Envoy, p50",
            ("id", "rounds", "another tenant's ms", "unknown ms", "apart ms"),
            [
                (
                    row.kind,
                    str(row.rounds),
                    *(f"{ms:.3f}" for ms in (row.foreign_ms, row.unknown_ms, row.apart_ms)),
                )
                for row in rows
            ],
        )
    )
    print(
        table(
            "Tokens taken",
            ("where", "hostile", "good"),
            [(where, f"{bad.taken} of {bad.sent}", f"{good.taken} of {good.sent}") for where, bad, good in taken],
        )
    )
    verdicts = [
        *(Verdict(f"{row.kind}: another tenant's and unknown apart, p50", row.apart_ms, 0.1, " ms") for row in rows),
        Verdict("hostile tokens taken", sum(bad.taken for _, bad, _ in taken), 0),
        Verdict("good tokens refused", sum(good.sent - good.taken for _, _, good in taken), 0),
    ]
    figures = {
        "ids": [asdict(row) for row in rows],
        "tokens": [{"where": where, "hostile": asdict(bad), "good": asdict(good)} for where, bad, good in taken],
    }
    return Findings(figures, verdicts)


class _Api:
    """One tenant's connection to the edge."""

    def __init__(self, service: Service, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.edge_port, timeout=_TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, verb: str, path: str, body: bytes = b"", media_type: str = "application/json") -> tuple[int, bytes]:
        """Returns status and body."""
        headers = self._headers | ({"Content-Type": media_type} if body else {})
        self._connection.request(verb, path, body or None, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def make(self, path: str, field: str, body: bytes, media_type: str = "application/json") -> str:
        """Makes something and returns its id."""
        status, answer = self.ask("POST", path, body, media_type)
        if status not in (200, 201, 202):
            raise ValueError(f"{path}: {status} {answer[:200]!r}")
        return str(json.loads(answer)[field])

    def close(self) -> None:
        self._connection.close()


def _rows(plan: Plan, service: Service) -> list[_Row]:
    rng = random.Random(plan.seed)
    with closing(_Api(service, service.token_of("host"))) as host:
        upload = host.make("/v1/uploads", "storage_id", picture.small_picture(), "image/png")
        entry = {"id": "a", "image": {"storage_id": upload}}
        job = host.make("/v1/jobs", "job_id", json.dumps({"model": SHAPES, "inputs": [entry]}).encode())
        webhook = host.make("/v1/webhooks", "webhook_id", b'{"url": "https://hooks.example.com/a"}')
    rounds = _QUICK_ROUNDS if plan.quick else _ROUNDS
    with closing(_Api(service, service.token_of("visitor"))) as visitor:
        return [
            _row(visitor, kind, rounds, rng, f"/v1/{kind}/{foreign}", f"/v1/{kind}/{new_id(prefix)}")
            for kind, prefix, foreign in (
                ("uploads", "img", upload),
                ("jobs", "job", job),
                ("webhooks", "webhook", webhook),
            )
        ]


def _row(visitor: _Api, kind: str, rounds: int, rng: random.Random, foreign: str, unknown: str) -> _Row:
    """Asks for both in each round, in an order of its own."""
    took_ms: dict[str, list[float]] = {foreign: [], unknown: []}
    for _ in range(rounds):
        for path in rng.sample((foreign, unknown), 2):
            started = time.perf_counter()
            status, _ = visitor.ask("GET", path)
            took_ms[path].append(1000 * (time.perf_counter() - started))
            if status != 404:
                raise ValueError(f"{path}: {status}")
    apart = [theirs - never for theirs, never in zip(took_ms[foreign], took_ms[unknown], strict=True)]
    return _Row(
        kind=kind,
        rounds=rounds,
        foreign_ms=statistics.median(took_ms[foreign]),
        unknown_ms=statistics.median(took_ms[unknown]),
        apart_ms=abs(statistics.median(apart)),
    )


@dataclass(frozen=True, slots=True)
class _Tokens:
    sent: int
    taken: int


def _taken(service: Service, ring: KeyRing) -> list[tuple[str, _Tokens, _Tokens]]:
    """Returns how many of the hostile and of the good tokens were taken, by where they were sent."""
    key = IssuerKeys(ring, SystemClock()).primary()
    signer = Signer(key.private_key, key.kid, jwt.decode(service.token, options={"verify_signature": False}))
    found = []
    for where, takes in (("edge", _edge_takes), ("gRPC port", _port_takes)):
        bad, good = (
            _Tokens(len(tokens), sum(takes(service, token) for token in tokens.values()))
            for tokens in (hostile(signer), fine(signer))
        )
        found.append((where, bad, good))
    return found


def _edge_takes(service: Service, token: str) -> bool:
    with closing(_Api(service, token)) as api:
        return api.ask("GET", "/v1/models")[0] == 200


def _port_takes(service: Service, token: str) -> bool:
    with grpc.insecure_channel(service.grpc_target) as channel:
        try:
            models_pb2_grpc.ModelServiceStub(channel).ListModels(
                models_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=_TIMEOUT_S
            )
        except grpc.RpcError:
            return False
    return True
