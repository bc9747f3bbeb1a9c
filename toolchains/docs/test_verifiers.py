"""The receivers of docs/webhooks.md, as they stand there, with events that the service sent and with forged ones."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from uuid import uuid4

import httpx
import pytest
from tests.conftest import Stack, free_ports, start_stack, stop_stack
from tests.e2e.receiver import Event, Receiver, receiver
from tests.e2e.test_jobs import entry, finished

from camserve_server.core.webhook_signing import secret_bytes, signed_headers

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
START_WITHIN_S = 60
HEAR_WITHIN_S = 60
# By the language of the block: the name of its file, what builds it, what runs it.
LANGUAGES: dict[str, tuple[str, list[str], list[str]]] = {
    "python": ("receiver.py", [], ["python3", "receiver.py"]),
    "js": ("receiver.mjs", [], ["node", "receiver.mjs"]),
    "go": ("receiver.go", ["go", "build", "-o", "receiver", "receiver.go"], ["./receiver"]),
    "java": ("Receiver.java", ["javac", "Receiver.java"], ["java", "Receiver"]),
}

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Sender:
    """A stack that may send to two places: to what keeps events, and to the port of the receiver that is tried."""

    stack: Stack
    kept: Receiver
    tried_port: int


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    """One stack for every receiver; one of them runs at a time."""
    (tried_port,) = free_ports(1)
    with receiver() as kept:
        places = f"{kept.place},127.0.0.1/32:{tried_port}"
        running = start_stack(tmp_path_factory.mktemp("stack"), webhook_allow=places)
        yield Sender(running, kept, tried_port)
        stop_stack(running)


class Program:
    """A receiver that runs, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._lines: Queue[str] = Queue()
        self._process = process
        self.url = url
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)

    def heard(self, event_id: str) -> str:
        """Returns the line that it prints about an event."""
        until = time.monotonic() + HEAR_WITHIN_S
        while (left := until - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except Empty:
                break
            if event_id in line:
                return line
        pytest.fail(f"{event_id} was not heard of")

    def silent(self) -> bool:
        """Returns whether it has printed nothing that was not looked at yet."""
        return self._lines.empty()

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        """Returns the status with which it answers an event."""
        return httpx.post(self.url, headers=headers, content=body, timeout=30).status_code


Run = Callable[[str], AbstractContextManager[Program]]


@pytest.fixture(params=LANGUAGES)
def run(request: pytest.FixtureRequest, sender: Sender, tmp_path: Path) -> Run:
    """Runs the page's receiver of one language with a secret, as a context."""
    name, build, start = LANGUAGES[request.param]
    for tool in (build or start)[0], start[0]:
        if not tool.startswith("./") and shutil.which(tool) is None:
            pytest.fail(f"{tool} is missing: the receiver in {request.param} was not run")
    (text,) = re.findall(rf"^```{request.param}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert text.count("9000") == 1
    (tmp_path / name).write_text(text.replace("9000", str(sender.tried_port)))
    environment = {key: value for key, value in sender.stack.environment.items() if not key.startswith("PYTHON")}
    if build:
        subprocess.run(build, cwd=tmp_path, env=environment, check=True)

    @contextmanager
    def running(secret: str) -> Iterator[Program]:
        environment["WEBHOOK_SECRET"] = secret
        with subprocess.Popen(
            start, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                wait_listening(process, sender.tried_port)
                yield Program(process, f"http://127.0.0.1:{sender.tried_port}/")
            finally:
                process.kill()

    return running


def wait_listening(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"it does not listen:\n{process.communicate()[1]}")


@pytest.fixture
def api(sender: Sender) -> Iterator[httpx.Client]:
    headers = sender.stack.headers(tenant=f"hooks-{uuid4()}")
    with httpx.Client(base_url=sender.stack.edge_url, headers=headers, timeout=60) as client:
        yield client


def register(api: httpx.Client, url: str) -> dict[str, str]:
    answer = api.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def kept(api: httpx.Client, sender: Sender) -> Callable[[], Event]:
    """Has the service send an event to the receiver that keeps it; `kept.webhook` is where it was registered."""
    path = f"/{uuid4()}"
    webhook = register(api, sender.kept.url(path))

    def send() -> Event:
        seen = len(sender.kept.at(path))
        answer = api.post(f"/v1/webhooks/{webhook['webhook_id']}:test")
        assert answer.status_code == 202, answer.text
        return sender.kept.wait(path, seen + 1)[-1]

    send.webhook = webhook  # type: ignore[attr-defined]
    return send


def signed(event: Event) -> dict[str, str]:
    """The headers of an event that its sender signed and named."""
    return {name: value for name, value in event.headers.items() if name.startswith(("x-", "webhook-"))}


def test_it_takes_what_the_service_sends(run, api, sender):
    webhook = register(api, f"http://127.0.0.1:{sender.tried_port}/")
    with run(webhook["secret"]) as program:
        # Whoever verifies the parsed body instead of its bytes fails here.
        metadata = {"größe": 1.50, "emoji": "✓", "order": [7, None]}
        job_id = api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")], "metadata": metadata}).json()[
            "job_id"
        ]
        finished(api, job_id)
        while not (sent := api.get(f"/v1/webhooks/{webhook['webhook_id']}/deliveries").json()["deliveries"]):
            time.sleep(0.02)
        said = program.heard(sent[0]["event_id"])
        assert "job.succeeded" in said
        assert job_id in said
        while (found := api.get(f"/v1/webhooks/{webhook['webhook_id']}/deliveries").json()["deliveries"][0])[
            "status"
        ] == "pending":
            time.sleep(0.02)
        assert (found["status"], found["attempts"], found["last_status"]) == ("delivered", 1, 204)


def test_while_a_secret_rotates_it_takes_events_with_either(run, api, kept):
    first = kept.webhook["secret"]
    second = api.post(f"/v1/webhooks/{kept.webhook['webhook_id']}:rotate").json()["secret"]
    for secret in (first, second):
        with run(secret) as program:
            event = kept()
            assert event.headers["x-signature"].count("sha256=") == 2
            assert program.answer(signed(event), event.body) == 204
            program.heard(event.id)


def test_it_takes_events_of_the_last_five_minutes_only(run):
    secret = f"whsec_{'A' * 43}="
    with run(secret) as program:
        for seconds, status in {-1000: 403, -200: 204, 200: 204, 1000: 403, -1_000_000_000: 403}.items():
            event_id, body = f"evt_{uuid4().hex}", b'{"event": "webhook.test", "job_id": "job_0"}'
            sent = int(time.time()) + seconds
            assert program.answer(signed_headers([secret_bytes(secret)], event_id, sent, body), body) == status
            if status == 204:
                program.heard(event_id)
        assert program.silent()


def test_what_was_forged_is_refused(run, kept):
    secret = kept.webhook["secret"]
    stranger = bytes(32)
    with run(secret) as program:
        event = kept()
        headers, body = signed(event), event.body
        text, now = headers["x-signature"], int(headers["x-timestamp"])
        forged: list[tuple[dict[str, str | None], bytes]] = [
            ({}, body + b" "),
            ({}, b""),
            ({}, body.replace(b"webhook.test", b"job.succeeded")),
            ({"x-event-id": "evt_0000000000000000000000"}, body),
            ({"x-event-id": None}, body),
            ({"x-timestamp": str(now + 1)}, body),
            ({"x-timestamp": f"{now}.0"}, body),
            ({"x-timestamp": "now"}, body),
            ({"x-timestamp": ""}, body),
            ({"x-timestamp": None}, body),
            ({"x-timestamp": "9" * 400}, body),
            ({"x-signature": None}, body),
            ({"x-signature": ""}, body),
            ({"x-signature": text.removeprefix("sha256=")}, body),
            ({"x-signature": f"sha512={text.removeprefix('sha256=')}"}, body),
            ({"x-signature": text[:-1]}, body),
            ({"x-signature": f"{text}0"}, body),
            ({"x-signature": f"sha256={'0' * 64}"}, body),
            ({"x-signature": ",".join([f"sha256={'0' * 64}"] * 3)}, body),
            (dict(signed_headers([stranger], event.id, now, body)), body),
            (dict(signed_headers([b""], event.id, now, body)), body),
            (dict(signed_headers([secret.encode()], event.id, now, body)), body),
        ]
        for changes, sent in forged:
            changed = {name: value for name, value in (headers | changes).items() if value is not None}
            assert program.answer(changed, sent) == 403, (changes, sent)
        # A receiver that hangs up before it has read all of it may be quicker than its answer.
        with suppress(httpx.TransportError):
            assert program.answer(headers, b"x" * 200_000) == 413
        assert program.silent()
        # The event itself is as good as before.
        assert program.answer(headers, body) == 204
        program.heard(event.id)
