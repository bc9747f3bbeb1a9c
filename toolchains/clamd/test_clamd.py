"""Images through the real clamd, which knows one signature, made by hand."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import time

import httpx
import pytest
from PIL import Image, PngImagePlugin
from tests.e2e.test_jobs import finished
from tests.images import star_png

pytestmark = pytest.mark.timeout(180)

SIGNATURE = b"CAMSERVE-TEST-SIGNATURE-NOT-A-VIRUS"


def infected() -> bytes:
    """A sound picture of a star with the signature in its text."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SIGNATURE.decode())
    file = io.BytesIO()
    Image.open(io.BytesIO(star_png())).save(file, "PNG", pnginfo=text)
    return file.getvalue()


@pytest.fixture
def clamd(tmp_path):
    """A running clamd and the address of its socket."""
    program = shutil.which("clamd")
    assert program, "clamd is missing"
    database = tmp_path / "database"
    database.mkdir()
    (database / "test.ndb").write_text(f"Camserve.Test:0:*:{SIGNATURE.hex()}\n")
    socket = tmp_path / "clamd.sock"
    config = tmp_path / "clamd.conf"
    config.write_text(f"LocalSocket {socket}\nDatabaseDirectory {database}\nForeground true\nStreamMaxLength 50M\n")
    with subprocess.Popen(
        [program, "--config-file", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        try:
            while not socket.exists():
                assert it.poll() is None, "clamd did not start"
                time.sleep(0.05)
            yield it, f"unix:{socket}"
        finally:
            it.kill()


def error_code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def infer(api, data):
    return api.post("/v1/infer", params={"model": "shapes"}, content=data, headers={"content-type": "image/png"})


def upload(api, data):
    return api.post("/v1/uploads", content=data, headers={"content-type": "image/png"})


def test_what_clamd_finds_is_rejected_wherever_it_comes_in(make_stack, clamd):
    stack = make_stack(clamd=clamd[1], torch_threads=1)
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as api:
        assert infer(api, star_png()).status_code == 200
        assert upload(api, star_png()).status_code == 201
        assert error_code(infer(api, infected())) == (422, "image.rejected")
        assert error_code(upload(api, infected())) == (422, "image.rejected")
        inputs = [
            {"id": name, "image": {"bytes": base64.b64encode(data).decode()}}
            for name, data in (("good", star_png()), ("bad", infected()))
        ]
        batch = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs})
        items = [json.loads(line).get("item") for line in batch.text.splitlines()]
        assert {item["id"]: item["status"] for item in items if item} == {"good": "succeeded", "bad": "failed"}
        job = finished(api, api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs}).json()["job_id"])
        assert job["result_summary"] == {"items": 2, "succeeded": 1, "failed": 1}


@pytest.mark.parametrize(("fail_open", "wanted"), [(False, (502, 502)), (True, (200, 201))])
def test_without_a_verdict_the_setting_decides(make_stack, clamd, fail_open, wanted):
    process, address = clamd
    stack = make_stack(clamd=address, clamd_fail_open=fail_open, clamd_timeout_s=5, torch_threads=1)
    process.kill()
    process.wait()
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as api:
        answers = infer(api, star_png()), upload(api, star_png())
        assert tuple(answer.status_code for answer in answers) == wanted
        if not fail_open:
            assert {error_code(answer) for answer in answers} == {(502, "upstream.failed")}


def test_what_is_too_long_for_clamd_gets_no_verdict(make_stack, clamd):
    stack = make_stack(clamd=clamd[1], torch_threads=1)
    header = star_png()
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as api:
        answer = upload(api, header + bytes(60_000_000))
        assert error_code(answer) == (502, "upstream.failed")
