"""A real S3 server for tests: SeaweedFS, with one bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.conftest import free_ports

from camserve_server.stores.s3_objects import S3Settings
from camserve_server.stores.sigv4 import Credentials, presigned

CREDENTIALS = Credentials("camserve-tests", "only/for+tests")
BUCKET = "images"
REGION = "us-east-1"


@dataclass
class S3Server:
    """Where it listens."""

    url: str

    def settings(self, prefix: str = "", **changes) -> S3Settings:
        return S3Settings(BUCKET, prefix, REGION, endpoint=self.url, credentials=CREDENTIALS, **changes)

    def environment(self, prefix: str) -> dict[str, str]:
        """Returns the settings of a stack that keeps its objects here."""
        return {
            "objects_url": f"s3://{BUCKET}/{prefix}",
            "s3_endpoint": self.url,
            "s3_access_key_id": CREDENTIALS.key_id,
            "s3_secret_access_key": CREDENTIALS.secret,
        }

    def request(self, method: str, path: str = "", **query: str) -> httpx.Response:
        """Calls the bucket itself."""
        url = f"{self.url}/{BUCKET}{path}"
        options = {"region": REGION, "now": time.time(), "expires_s": 60, "query": query}
        return httpx.request(method, presigned(method, url, CREDENTIALS, **options))

    def keys(self, prefix: str) -> list[str]:
        listed = self.request("GET", **{"list-type": "2", "prefix": prefix}).text
        return [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": CREDENTIALS.key_id, "secretKey": CREDENTIALS.secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = iter(free_ports(8))
    port = next(ports)
    command = [Path(sys.executable).with_name("weed"), "server", f"-dir={folder}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}", f"-s3.port.grpc={next(ports)}"]
    # They would take ports of their own, the same ones in every server of the machine.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for part in ("master", "volume", "filer"):
        command += [f"-{part}.port={next(ports)}", f"-{part}.port.grpc={next(ports)}"]
    command += ["-master.volumeSizeLimitMB=256", "-master.volumePreallocate=false"]
    environment = os.environ | {"WEED_S3_SSE_KEY": "objects are encrypted under this"}
    with (
        (folder / "weed.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            server = S3Server(f"http://127.0.0.1:{port}")
            _make_bucket(server, process)
            yield server
        finally:
            process.kill()  # it takes half a minute to end by itself


def _make_bucket(server: S3Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the S3 server has ended"
        try:
            if server.request("PUT").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the S3 server makes no bucket")
