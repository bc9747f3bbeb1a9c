"""`camserve webhooks listen`, the receiver on one's own machine."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import httpx
import pytest
from tests.conftest import camserve_program, free_ports

from camserve_server.core.webhook_signing import secret_text, signed_headers

pytestmark = pytest.mark.timeout(120)


def test_listen_says_what_the_server_must_allow(stack):
    (port,) = free_ports(1)
    refused = stack.camserve("webhooks", "listen", "--port", str(port), "--tenant", "tests")
    assert refused.returncode == 1
    assert f"127.0.0.1/32:{port}" in refused.stderr


def test_listen_verifies_with_a_secret_and_says_what_is_not_authentic(stack):
    (port,) = free_ports(1)
    secret = secret_text(bytes(32))
    command = [camserve_program(), "webhooks", "listen", "--port", str(port), "--secret", secret]
    with subprocess.Popen(command, env=stack.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}/\n"
            for key, status in ((bytes(32), 200), (bytes(31) + b"x", 401)):
                headers = signed_headers([key], "evt_1", int(time.time()), b"{}")
                assert httpx.post(f"http://127.0.0.1:{port}/", content=b"{}", headers=headers).status_code == status
            assert process.stdout.readline() == "verified evt_1 {}\n"
            assert process.stdout.readline() == "NOT AUTHENTIC evt_1 {}\n"
            long = "\u202e\x1b[2J".encode() + b"x" * 200_000
            assert httpx.post(f"http://127.0.0.1:{port}/", content=long).status_code == 401
            assert re.fullmatch(r"NOT AUTHENTIC no id \\u202e\\x1b\[2Jx{1,200}\n", process.stdout.readline())
            again = subprocess.run(
                command, env=stack.environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert again.returncode == 1
            assert f"127.0.0.1:{port} cannot be bound" in again.stderr
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_listen_registers_a_webhook_for_as_long_as_it_runs(make_stack):
    """As docs/webhooks.md tells people to try it on their own machine."""
    (port,) = free_ports(1)
    running = make_stack(fetch_allow=f"127.0.0.1/32:{port}", torch_threads=1)
    command = [camserve_program(), "webhooks", "listen", "--port", str(port), "--tenant", "tests"]
    with (
        subprocess.Popen(command, env=running.environment, stdout=subprocess.PIPE, text=True) as process,
        httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api,
    ):
        try:
            assert process.stdout
            registered = process.stdout.readline()
            assert "listening" in process.stdout.readline()
            (webhook,) = api.get("/v1/webhooks").json()["webhooks"]
            assert webhook["webhook_id"] in registered
            api.post(f"/v1/webhooks/{webhook['webhook_id']}:test")
            assert process.stdout.readline().startswith("verified evt_")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert api.get("/v1/webhooks").json()["webhooks"] == []
