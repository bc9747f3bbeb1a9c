"""The kit as a package: what it is made of, and that it needs no part of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from camserve_conformance.catalogue import CATALOGUE
from camserve_conformance.checks import SECTIONS
from camserve_server.base.errors import CATALOGUE as SERVED

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "conformance" / "src" / "camserve_conformance"


def test_describing_the_contract_again_changes_nothing(tmp_path: Path) -> None:
    described = tmp_path / "contract.binpb"
    subprocess.run([sys.executable, ROOT / "protos/generate_stubs.py", described, "--no-comments"], check=True)
    assert described.read_bytes() == (SOURCE / "contract.binpb").read_bytes()


def test_it_runs_without_the_server_and_its_packages() -> None:
    hidden = [
        "camserve",
        "camserve_server",
        "camserve_client",
        "torch",
        "numpy",
        "PIL",
        "aiohttp",
        "google.api",
        "google.rpc",
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); sys.path.insert(0, {str(SOURCE.parent)!r}); "
        "from camserve_conformance.cli import main; sys.exit(main(['--list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "surface.health" in done.stdout


def test_names_of_checks_are_single_and_sentences_are_sentences() -> None:
    checks = [check for section in SECTIONS for check in section.checks]
    assert len({check.name for check in checks}) == len(checks)
    assert not [check.name for check in checks if not check.sentence.endswith(".") or "\n" in check.sentence]


def test_the_server_knows_every_code_of_the_table_as_it_stands_there() -> None:
    known = {reason.value: (row.status, row.type, row.grpc) for reason, row in SERVED.items()}
    for code, row in CATALOGUE.items():
        status, kind, grpc = known[code]
        assert (status, kind) == (row.status, row.type)
        assert grpc in row.grpc
