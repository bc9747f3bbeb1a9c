"""The Compose file: valid, confined, and its services' commands run as one service."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotThere
from tests.e2e.test_jobs import create, entry, finished
from toolchains.deploy.conftest import tool
from toolchains.deploy.parts import DEPLOY, Part, ending, image_environment

from camserve_server.base.config import Settings
from camserve_server.cli.valkey import find_valkey

FILE = DEPLOY / "compose" / "compose.yaml"

pytestmark = pytest.mark.timeout(900)

Node = dict[str, Any]


@pytest.fixture(scope="module")
def services() -> dict[str, Node]:
    """Every service, as the library of Compose itself reads the file."""
    done = subprocess.run([tool("compose-go"), "-format", "json", FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Node] = json.loads(done.stdout)["services"]
    return found


def test_every_service_is_confined(services) -> None:
    assert services.keys() == {"prepare", "valkey", "api", "worker", "edge"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        settings = {each for each in service.get("environment", {}) if each.startswith("CAMSERVE_")}
        assert settings <= {f"CAMSERVE_{each.upper()}" for each in Settings.model_fields}
        if name in ("api", "worker", "edge"):
            assert service["user"] == "10001:10001"
            # The default lame duck and drain, and what is over after them.
            assert service["stop_grace_period"] == "40s"
    assert services["valkey"]["networks"].keys() == {"inside"}
    published = {name for name, service in services.items() if service.get("ports")}
    assert published == {"edge"}
    (port,) = services["edge"]["ports"]
    assert port["host_ip"] == "127.0.0.1"


def part_of(name: str, service: Node, folder, address: str, shared: dict[str, str]) -> Part:
    """A service as a process: volumes that several mount are one folder, the others its own."""
    own = folder / name
    own.mkdir()
    places = dict(shared)
    for volume in service.get("volumes", []):
        place = folder / "volumes" / volume["source"]
        place.mkdir(parents=True, exist_ok=True)
        places[volume["target"]] = str(place)
    for mount in service.get("tmpfs", []):
        place = own / mount.partition(":")[0].strip("/")
        place.mkdir()
        places[mount.partition(":")[0]] = str(place)
    settings = image_environment() | {key: str(value) for key, value in (service.get("environment") or {}).items()}
    return Part(name, service["command"], settings, address, own / "log", places)


def healthy(part: Part, service: Node) -> bool:
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    # In its container it is alone on its loopback address.
    return part.run([word.replace("127.0.0.1", part.address) for word in command]).returncode == 0


def test_the_services_serve_and_end_in_time(services, tmp_path, addresses) -> None:
    at = {name: next(addresses) for name in ("valkey", "api", "worker", "edge")}
    shared = {"api:50051": f"{at['api']}:50051", "api:50052": f"{at['api']}:50052"}
    shared |= {
        "redis://valkey:6379": f"redis://{at['valkey']}:6379",
        "http://127.0.0.1:8080": f"http://{at['edge']}:8080",
    }
    prepare = part_of("prepare", services["prepare"], tmp_path, at["api"], shared)
    (script,) = prepare.arguments
    assert services["prepare"]["entrypoint"] == ["sh", "-euc"]
    done = prepare.run(["sh", "-euc", script.replace("--name api", f"--name api --name {at['api']}")])
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "volumes" / "ca").iterdir()] == ["ca.pem"]
    program, *options = services["valkey"]["command"]
    assert program == "valkey-server"
    folder = tmp_path / "volumes" / "valkey"
    folder.mkdir(parents=True)
    store = subprocess.Popen([find_valkey(), *options, "--bind", at["valkey"], "--dir", folder, "--logfile", "log"])
    parts = {name: part_of(name, services[name], tmp_path, at[name], shared) for name in ("api", "worker", "edge")}
    parts["worker"].extra = {"CAMSERVE_INTERNAL_PORT": "50082", "CAMSERVE_METRICS_HOST": at["worker"]}
    parts["api"].extra = {"CAMSERVE_METRICS_HOST": at["api"]}
    for part in parts.values():
        part.extra["CAMSERVE_IMAGING_WORKERS"] = "1"
    try:
        with Redis(host=at["valkey"], retry=None) as client, ending(list(parts.values())):
            parts["api"].process = store
            parts["api"].wait(lambda: _answers(client))
            for name, part in parts.items():
                part.start()
                part.wait(lambda part=part, name=name: healthy(part, services[name]))
            token = parts["api"].run(["camserve", "token", "--tenant", "tests"]).stdout.strip()
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=f"http://{at['edge']}:8080", headers=headers, timeout=60) as caller:
                job_id = create(caller, [entry("a", grad_cam={"enabled": True})]).json()["job_id"]
                assert finished(caller, job_id)["status"] == "succeeded"
                (item,) = caller.get(f"/v1/jobs/{job_id}/results").json()["items"]
                assert caller.get(item["result"]["heatmap"]["url"]).content.startswith(b"\x89PNG")
            for part in reversed(parts.values()):
                assert part.end(40) == 0, part.log.read_text()[-2000:]
    finally:
        store.terminate()
        store.wait()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except NotThere:
        return False
