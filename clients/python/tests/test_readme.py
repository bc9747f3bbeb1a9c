"""Every snippet of the README runs, in its order."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.images import GOLDEN, opened

from camserve_client import AsyncClient

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.timeout(180)


def snippets(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch, stack, tenant):
    """What a reader has: pictures, a token, credentials."""
    (tmp_path / "photos").mkdir()
    for name in ("star", "ring"):
        picture = opened((GOLDEN / f"{name}.png").read_bytes()).convert("RGB")
        picture.save(tmp_path / "photos" / f"{name}.jpg", quality=95)
        picture.save(tmp_path / "photo.jpg", quality=95)
        picture.resize((1300, 1300)).save(tmp_path / "slide.tif")
    scopes = "inference.read inference.write jobs.read jobs.write"
    printed = stack.camserve("client", "create", "--tenant", tenant, "--scope", scopes).stdout
    told = dict(line.split("=", 1) for line in printed.splitlines())
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "CAM_TOKEN": stack.token(tenant=tenant),
        "CLIENT_ID": told["client_id"],
        "CLIENT_SECRET": told["client_secret"],
        "CAM_LOGIN_FILE": str(tmp_path / "login.json"),
        "CAM_MODEL": "shapes",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def here(text, stack):
    return text.replace("http://127.0.0.1:8080", stack.edge_url).replace("127.0.0.1:50051", stack.grpc_target)


async def test_the_python_runs(folder, stack, tenant, capsys):
    names = {}
    async with AsyncClient(stack.edge_url, token=stack.token(tenant=tenant)) as client:
        for number, snippet in enumerate(snippets("python")):
            code = compile(here(snippet, stack), f"snippet {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            names["client"] = client
            running = eval(code, names)
            if inspect.iscoroutine(running):
                await running
    said = capsys.readouterr().out
    assert "ring" in said
    assert "star.jpg" in said or "0 " in said
    assert "model.not_found 404" in said
    assert tenant in said
    assert opened((folder / "heatmap.png").read_bytes()).size == (160, 160)
    assert (folder / "front.png").exists()
    assert names["values"].shape == (160, 160)


def test_the_commands_run(folder, stack, tmp_path):
    program = folder / "bin" / "cam"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from camserve_client.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CAM_TOKEN"}
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    script = f"set -e\n{here(snippets('sh')[1], stack)}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results.csv").read_text().count("succeeded") == 2
    assert len(list((folder / "maps").iterdir())) == 2
    assert not (folder / "login.json").exists()


def test_what_is_installed_is_what_there_is():
    extras = re.findall(r"clients/python\[([a-z]+)\]", snippets("sh")[0])
    declared = (README.parent / "pyproject.toml").read_text()
    assert extras
    assert all(f"\n{extra} = [" in declared for extra in extras)
