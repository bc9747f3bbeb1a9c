"""Resumable uploads by tus-js-client, the client of browsers."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import httpx
from tests.images import encoded


def test_the_client_of_browsers_stops_and_goes_on(stack, tmp_path):
    data = encoded(1200, 1200, "PNG")
    image = tmp_path / "a.png"
    image.write_bytes(data)
    token = stack.token()
    program = [Path(__file__).with_name("upload.js"), f"{stack.edge_url}/v1/uploads:resumable", token, image, "500000"]
    done = subprocess.run(["node", *program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    upload = httpx.get(done.stdout.strip(), headers={"authorization": f"Bearer {token}"}).json()
    assert upload["sha256"] == hashlib.sha256(data).hexdigest()
