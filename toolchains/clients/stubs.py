"""Whether generated stubs are what the protos make of them now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from toolchains.clients.conftest import ROOT, run

BUF = ("npx", "--yes", "--package=@bufbuild/buf@1.75.0", "--", "buf")


def assert_fresh(client: Path, folder: Path) -> None:
    """Generates into `folder` as the client's `buf.gen.yaml` says, and compares with what is committed."""
    template = yaml.safe_load((client / "buf.gen.yaml").read_text())
    (out,) = {plugin["out"] for plugin in template["plugins"]}
    for plugin in template["plugins"]:
        plugin["out"] = str(folder / "gen")
    run(*BUF, "generate", "--template", json.dumps(template), cwd=ROOT)
    assert_same(ROOT / out, folder / "gen")
    shutil.rmtree(folder / "gen")


def assert_same(old: Path, new: Path) -> None:
    """Compares two folders file by file."""
    before, after = _texts(old), _texts(new)
    assert sorted(before) == sorted(after)
    assert [name for name, text in after.items() if before[name] != text] == []


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
