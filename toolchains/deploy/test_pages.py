"""The commands of docs/deploy.md and docs/runbooks.md would begin, and keys in a Secret are rotated."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import camserve_program
from tests.docs.snippets import ROOT, Block, blocks
from tests.docs.stand_in import PROGRAM, begin, noted
from toolchains.deploy.conftest import tool

from camserve_server.base.clock import SystemClock
from camserve_server.stores.keyring import KeyRing

OURS = "toolchains/deploy/test_pages.py"
PAGES = [ROOT / "docs" / name for name in ("deploy.md", "runbooks.md")]
BLOCKS = [block for page in PAGES for block in blocks(page) if block.run_by == OURS]
# Programs that only note how they are called.
OTHERS = ("docker", "kubectl", "helm", "systemctl", "useradd", "install", "curl", "cyclonedx-py", "pip")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_its_commands_would_begin(block: Block, tmp_path: Path) -> None:
    programs, notes, work = (tmp_path / name for name in ("bin", "notes", "work"))
    for folder in (programs, notes, work):
        folder.mkdir()
    for name in ("camserve", "deploy", "git", "python3", *OTHERS):
        (programs / name).write_text(PROGRAM.format(folder=notes))
        (programs / name).chmod(0o755)
    text = re.sub(r"\.venv/bin/|/opt/camserve/bin/", "", block.text).replace("deploy/helm/rotate-keys", "deploy")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TOKEN": "a.b.c", "WEBHOOK_ID": "wh_1"}
    subprocess.run(["bash", "-euc", text], cwd=work, env=environment, check=True)
    calls = [arguments for arguments, _ in noted(notes)]
    assert calls
    for arguments in calls:
        if arguments[0] == "camserve":
            begin(arguments)
        elif arguments[0] in ("docker", "kubectl") and "camserve" in arguments:
            # What is run inside.
            begin(arguments[arguments.index("camserve") :])
        elif arguments[:2] == ["helm", "upgrade"] and "--install" in arguments:
            values = [word for place, word in enumerate(arguments) if "--set" in (word, arguments[place - 1])]
            command = [tool("helm"), "template", "cam", *values, ROOT / "deploy" / "helm" / "camserve"]
            subprocess.run(command, check=True, capture_output=True)
    for path in re.findall(r"\bdeploy/(?:compose|docker|helm|systemd)/[\w./-]+", block.text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("ring", ["tokens", "state"])
def test_a_ring_in_a_secret_is_rotated_and_begins_when_every_pod_has_it(ring: str, tmp_path: Path) -> None:
    path = tmp_path / "keys" / f"{ring}.json"
    before = KeyRing(path, clock=SystemClock()).primary()
    encoded = base64.b64encode(path.read_bytes()).decode()
    programs = tmp_path / "bin"
    programs.mkdir()
    told = tmp_path / "told"
    (programs / "kubectl").write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {told}\n'
        'case "$*" in\n'
        "    *resourceVersion*) echo 7 ;;\n"
        f"    get*) echo {encoded} ;;\n"
        f'    patch*) for last; do :; done; cp "$last" {tmp_path}/patch.json ;;\n'
        "esac\n"
    )
    (programs / "kubectl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{Path(camserve_program()).parent}:{os.environ['PATH']}"}
    script = ROOT / "deploy" / "helm" / "rotate-keys"
    subprocess.run([script, ring], env=environment, check=True, cwd=tmp_path)
    patch = json.loads((tmp_path / "patch.json").read_text())
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert f"get secret camserve-keys -o jsonpath={{.data['{ring}\\.json']}}" in told.read_text()
    shutil.rmtree(tmp_path / "keys")
    path.parent.mkdir()
    path.write_bytes(base64.b64decode(patch["data"][f"{ring}.json"]))
    after = KeyRing(path, clock=SystemClock())
    assert after.primary() == before
    (_, new) = after.keys()
    assert 590 < new.begins_at - new.created_at <= 600
