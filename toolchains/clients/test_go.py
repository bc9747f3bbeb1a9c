"""The Go client: its stubs are fresh, its own tests pass against the running stack, and its README is true."""

from __future__ import annotations

import re
import shutil

import pytest
from toolchains.clients.conftest import ROOT, here, run
from toolchains.clients.stubs import assert_fresh

GO = ROOT / "clients" / "go"
pytestmark = pytest.mark.timeout(600)


def test_regenerating_the_stubs_changes_nothing(tmp_path):
    assert_fresh(GO, tmp_path)


def test_it_calls_the_service(environment):
    run("go", "vet", "-tags=live", "./...", cwd=GO)
    run("go", "test", "-tags=live", "-count=1", "-skip=Encrypted", "./...", cwd=GO, environment=environment)
    assert run("gofmt", "-l", "internal", *(path.name for path in GO.glob("*.go")), cwd=GO) == ""


def test_it_calls_the_service_over_tls(encrypted):
    run("go", "test", "-tags=live", "-count=1", "-run=Encrypted", ".", cwd=GO, environment=encrypted)


def test_the_example_of_the_readme_runs(stack, receiver_port, environment, pictures, tmp_path):
    (commands,) = re.findall(r"^```sh\n(.*?)^```", (GO / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = re.findall(r"^```go\n(.*?)^```", (GO / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    program = tmp_path / "program"
    shutil.copytree(pictures, program)
    (program / "main.go").write_text(here(example, stack, receiver_port))
    run("go", "mod", "init", "example.com/program", cwd=program)
    run("sh", "-ec", commands.replace("../camserve", str(ROOT)), cwd=program)
    said = run("go", "run", ".", cwd=program, environment=environment)
    assert "star: 9" in said
    assert "100 % of img_" in said
    assert "other.jpg ring" in said
    assert "front succeeded 1 of 1" in said
    assert "job.succeeded true" in said
    assert "model.not_found 404 true" in said
    assert (program / "heatmap.png").read_bytes().startswith(b"\x89PNG")
