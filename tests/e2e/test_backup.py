"""Backups: of a service that runs and is called, and back into another data directory."""

from __future__ import annotations

import stat
import subprocess
import tarfile
import threading

import httpx
import pytest
from tests.conftest import camserve_program, start_stack, stop_stack
from tests.e2e.kept import keep
from tests.e2e.test_jobs import create, entry, finished

pytestmark = pytest.mark.timeout(600)


def camserve(stack, *arguments):
    command = [camserve_program(), *arguments]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False)


def test_what_was_acknowledged_before_a_backup_of_a_running_service_comes_back(make_stack, tmp_path):
    running = make_stack()
    headers = running.headers()
    stop, failed = threading.Event(), []

    def go_on() -> None:
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as other:
            while not stop.is_set():
                answer = create(other, [entry("b", grad_cam={"enabled": True})])
                if answer.status_code != 202:
                    failed.append(answer.text)

    caller = threading.Thread(target=go_on)
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as api:
        kept = keep(api)
        caller.start()
        try:
            file = tmp_path / "backup.tar"
            done = camserve(running, "backup", file)
        finally:
            stop.set()
            caller.join()
    assert done.returncode == 0, done.stderr
    assert not failed
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not (running.data_dir / "valkey" / "dump.rdb").exists()
    # A stack that runs keeps what it has.
    refused = camserve(running, "restore", file)
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    other = tmp_path / "other"
    done = camserve(running, "restore", file, "--data-dir", other)
    assert done.returncode == 0, done.stderr
    again = start_stack(other)
    try:
        # The token of before counts, so the keys are the same.
        with httpx.Client(base_url=again.edge_url, headers=headers, timeout=60) as api:
            kept.is_there(api)
            # Jobs that were under way end; the inputs of those that ended in the meantime are gone.
            for job in api.get("/v1/jobs?limit=200").json()["jobs"]:
                assert finished(api, job["job_id"])["status"] in ("succeeded", "failed")
    finally:
        stop_stack(again)
    # And of one that does not run.
    done = camserve(running, "backup", file, "--data-dir", other)
    assert done.returncode == 0, done.stderr
    refused = camserve(running, "restore", file, "--data-dir", other)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    with tarfile.open(file) as archive:
        assert archive.getnames()[-1] == "backup.json"
    cut = tmp_path / "cut.tar"
    cut.write_bytes(file.read_bytes()[:-20480])
    refused = camserve(running, "restore", cut, "--data-dir", tmp_path / "third")
    assert (refused.returncode, "no whole backup" in refused.stderr) == (1, True)
    assert not (tmp_path / "third" / "keys").exists()
