"""The automation contract of `camserve up`, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from tests.conftest import REPLICAS, Stack, camserve_program, free_ports, stack_environment, stop_stack
from tests.e2e.test_jobs import replica_of
from tests.images import opened
from tests.processes import wait_gone

pytestmark = pytest.mark.timeout(180)


def children(stack: Stack) -> list[psutil.Process]:
    """Every process of the stack below the command; guards, too."""
    return psutil.Process(stack.process.pid).children(recursive=True)


def test_the_ready_file_names_what_answers(stack):
    assert set(stack.ready) == {"edge_url", "grpc_target", "internal_target", "pid", "data_dir", "replicas"}
    assert stack.ready["edge_url"] == f"http://127.0.0.1:{stack.environment['CAMSERVE_EDGE_PORT']}"
    assert stack.ready["grpc_target"] == f"127.0.0.1:{stack.environment['CAMSERVE_GRPC_PORT']}"
    assert stack.ready["internal_target"] == f"127.0.0.1:{stack.environment['CAMSERVE_INTERNAL_PORT']}"
    assert stack.ready["pid"] == stack.process.pid
    assert stack.ready["data_dir"] == str(stack.data_dir)


def test_the_self_check_wrote_its_heatmap(stack):
    assert opened((stack.data_dir / "self-check" / "heatmap.png").read_bytes()).mode == "RGB"


def test_every_listener_is_loopback(stack):
    listening = [
        connection.laddr
        for process in [psutil.Process(stack.process.pid), *children(stack)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_keys_and_state_are_private(stack):
    for path in [stack.data_dir / "keys", *(stack.data_dir / "keys").iterdir(), stack.data_dir / "run" / "stack.json"]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_token_command_prints_a_token_and_nothing_else(stack):
    printed = stack.camserve("token", "--tenant", "acme", "--scope", "inference.read", "--ttl", "5m")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout.count("\n") == 1
    headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}
    assert httpx.get(f"{stack.edge_url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tenant", ""),
        ("--tenant", "a", "--ttl", "25h"),
        ("--tenant", "a", "--ttl", "x"),
        ("--tenant", "a", "--scope", "jobs.read", "--scope", "jobs.none"),
    ],
)
def test_the_token_command_refuses_what_the_service_would(stack, arguments):
    printed = stack.camserve("token", *arguments)
    assert printed.returncode == 1
    assert printed.stdout == ""
    assert printed.stderr.startswith("camserve: ")


def test_a_token_that_no_running_service_knows_comes_with_a_warning(stack, tmp_path):
    printed = stack.camserve("token", "--tenant", "a", "--data-dir", str(tmp_path / "elsewhere"))
    assert printed.stdout.count("\n") == 1
    assert "had no keys yet" in printed.stderr


def test_the_models_command_lists_states(stack):
    printed = stack.camserve("models", "list").stdout.splitlines()
    assert any(line.startswith("shapes 2 (stable)  ready") for line in printed)
    assert any(line.startswith("broken 1 (stable)  unavailable: ") for line in printed)


def test_the_config_command_masks_secrets(stack):
    environment = stack.environment | {"CAMSERVE_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    printed = subprocess.run(
        [camserve_program(), "config"], env=environment, capture_output=True, text=True, check=True
    )
    assert "CAMSERVE_EDGE_PORT=" in printed.stdout
    assert "hunter2" not in printed.stdout


def test_a_bad_setting_stops_the_start_and_names_itself(tmp_path):
    environment = stack_environment(tmp_path, imaging_workers="none")
    printed = subprocess.run([camserve_program(), "up"], env=environment, capture_output=True, text=True, check=False)
    assert printed.returncode == 1
    assert "CAMSERVE_IMAGING_WORKERS='none'" in printed.stderr


@pytest.mark.parametrize("names", [("edge_port",), ("grpc_port", "metrics_port"), ("internal_port",)])
def test_ports_that_are_taken_stop_the_start_and_leave_nothing(stack, tmp_path, names):
    taken = {name: stack.environment[f"CAMSERVE_{name.upper()}"] for name in names}
    environment = stack_environment(tmp_path / "data", **taken)
    printed = subprocess.run([camserve_program(), "up"], env=environment, capture_output=True, text=True, check=False)
    assert printed.returncode == 1
    for name, port in taken.items():
        assert f"127.0.0.1:{port} (CAMSERVE_{name.upper()})" in printed.stderr
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def test_a_second_stack_on_the_same_data_is_refused(stack):
    environment = stack.environment | {
        f"CAMSERVE_{name}_PORT": str(port)
        for name, port in zip(("EDGE", "GRPC", "INTERNAL", "METRICS"), free_ports(4), strict=True)
    }
    printed = subprocess.run([camserve_program(), "up"], env=environment, capture_output=True, text=True, check=False)
    assert printed.returncode == 1
    assert "another camserve uses this data directory" in printed.stderr
    assert httpx.get(f"{stack.edge_url}/v1/health").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_the_exit_is_clean(make_stack, number):
    running = make_stack(replica_count=1)
    below = [process.pid for process in children(running)]
    assert len(below) >= 5
    running.process.send_signal(number)
    output = running.process.communicate(timeout=60)[0]
    assert running.process.returncode == 0, output
    for pid in below:
        wait_gone(pid)
    assert not (running.data_dir / "ready.json").exists()


@pytest.mark.skipif(REPLICAS > 1, reason="with others beside it, it waits")
def test_the_server_of_a_stack_does_not_wait_for_callers_to_go_elsewhere(stack):
    (server,) = [
        process
        for process in children(stack)
        if process.cmdline()[-1] == "serve" and "guard.py" not in str(process.cmdline())
    ]
    assert server.environ()["CAMSERVE_LAME_DUCK_S"] == "0"


def test_a_server_that_crashes_says_where_each_thread_was(make_stack):
    running = make_stack(replica_count=1)
    os.kill(replica_of(running), signal.SIGSEGV)
    log = running.data_dir / "logs" / "server.log"
    until = time.monotonic() + 30
    # The stacks are written one by one, other threads' first.
    while "Current thread 0x" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    assert "Fatal Python error: Segmentation fault" in log.read_text()
    assert "Current thread 0x" in log.read_text()


def test_a_stalled_upload_holds_the_stop_no_longer_than_the_drain_time(make_stack):
    running = make_stack(drain_s=3, replica_count=1)
    address = ("127.0.0.1", int(running.environment["CAMSERVE_EDGE_PORT"]))
    with socket.create_connection(address) as stalled:
        stalled.sendall(
            f"POST /v1/infer?model=shapes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.token()}\r\n"
            "Content-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc".encode()
        )
        # The answer to another call tells that the first one has long been under way.
        assert httpx.get(f"{running.edge_url}/v1/health").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        refused = None
        with suppress(httpx.TransportError):
            while (answer := httpx.get(f"{running.edge_url}/v1/health")).status_code == 200:
                pass
            refused = answer.json()["error"]["code"]
        assert refused in (None, "service.draining", "service.overloaded")
        running.process.communicate(timeout=30)
    assert running.process.returncode == 0


def test_killing_the_command_leaves_no_orphan(make_stack):
    running = make_stack(replica_count=1)
    below = [process.pid for process in children(running)]
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(10)
    for pid in below:
        wait_gone(pid)


def _content(file):
    with suppress(FileNotFoundError):
        return file.read_text()


def test_killing_what_started_the_command_leaves_no_orphan(tmp_path):
    # As `make run` does: make stays the parent.
    environment = stack_environment(tmp_path / "data", torch_threads=1)
    ready = tmp_path / "ready.json"
    ready.write_text("of a run that was killed")
    command = f"{camserve_program()} up --with-parent --ready-file {ready}; true"
    with subprocess.Popen(["bash", "-c", command], env=environment, stdout=subprocess.DEVNULL) as shell:
        try:
            # The command removes the old file at some moment, perhaps just after it was looked for.
            while _content(ready) in (None, "", "of a run that was killed"):
                assert shell.poll() is None
                time.sleep(0.05)
            below = [process.pid for process in psutil.Process(shell.pid).children(recursive=True)]
            assert len(below) >= 5
        finally:
            shell.kill()
    for pid in below:
        wait_gone(pid, within_s=40)


@pytest.mark.parametrize("name", ["valkey-server", "envoy", "camserve_server.cli.app serve"])
def test_a_part_that_is_killed_comes_back(make_stack, name):
    running = make_stack(replica_count=1)
    victim = next(
        process
        for process in children(running)
        if name in " ".join(process.cmdline()) and "guard.py" not in " ".join(process.cmdline())
    )
    victim.kill()
    wait_gone(victim.pid)
    headers = running.headers()
    deadline = time.monotonic() + 90
    while True:
        try:
            health = httpx.get(f"{running.edge_url}/v1/health", timeout=2)
            listing = httpx.get(f"{running.edge_url}/v1/models", headers=headers, timeout=2)
            if listing.status_code == 200 and health.json().get("status") == "serving":
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
    assert stop_stack(running).rstrip().endswith("stopped")


def test_data_outlives_a_restart(make_stack, tmp_path):
    first = make_stack(replica_count=1)
    made = dict(line.split("=", 1) for line in first.camserve("client", "create", "--tenant", "acme").stdout.split())
    token = first.token()
    stop_stack(first)
    second = subprocess.Popen(
        [camserve_program(), "up", "--ready-file", str(first.data_dir / "ready.json")],
        env=first.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not (first.data_dir / "ready.json").exists():
            assert second.poll() is None
            time.sleep(0.05)
        assert httpx.get(f"{first.edge_url}/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        answer = httpx.post(
            f"{first.edge_url}/oauth2/token",
            data={"grant_type": "client_credentials"},
            auth=(made["client_id"], made["client_secret"]),
        )
        assert answer.status_code == 200
    finally:
        second.terminate()
        second.communicate(timeout=60)


def test_the_sample_is_in_the_repository():
    from camserve_server.base.config import load
    from camserve_server.cli.self_check import sample_image

    assert Path(sample_image(load())).is_file()
