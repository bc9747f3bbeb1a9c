"""What the package is made of, and what it needs."""

from __future__ import annotations

import filecmp
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "clients" / "python" / "src"


def test_regenerating_the_messages_changes_nothing(tmp_path):
    out = tmp_path / "gen"
    subprocess.run([sys.executable, ROOT / "protos" / "generate_client.py", out], check=True)
    committed = SOURCE / "camserve_client" / "gen"
    names = sorted(path.name for path in committed.iterdir() if path.suffix in (".py", ".pyi"))
    assert names == sorted(path.name for path in out.iterdir())
    assert filecmp.cmpfiles(committed, out, names, shallow=False) == (names, [], [])


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_it_needs_neither_the_server_nor_what_its_extras_bring():
    loaded = run("import camserve_client, sys; print(*sys.modules)")
    assert not {"camserve_server", "camserve", "buf", "torch", "numpy", "PIL", "typer"} & set(loaded)


def test_other_copies_of_the_messages_may_be_in_the_same_process():
    """As of a server, or of another version: Python's default pool takes a message once and refuses the second."""
    printed = run(
        "from camserve.v1 import inference_pb2 as theirs\n"
        "import camserve_client\n"
        "from camserve_client.gen import inference_pb2 as ours\n"
        "message = ours.InferRequest(model='shapes')\n"
        "print(theirs.InferRequest.FromString(message.SerializeToString()).model, type(message) is theirs.InferRequest)"
    )
    assert printed == ["shapes", "False"]
