"""The Helm chart: valid with every kind of values, confined, and its pods' commands run as one service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.conftest import camserve_program
from tests.e2e.test_jobs import create, entry, finished
from tests.faults.valkey import valkey
from tests.s3_server import BUCKET, CREDENTIALS, s3_server
from toolchains.deploy.conftest import tool
from toolchains.deploy.load import calling
from toolchains.deploy.parts import DEPLOY, Part, ending, image_environment

from camserve_server.base.config import Settings

CHART = DEPLOY / "helm" / "camserve"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
REPLICAS = "cam-api.prod.svc.cluster.local"

pytestmark = pytest.mark.timeout(900)

Node = dict[str, Any]


def rendered(values: Path, *options: str) -> list[Node]:
    command = [tool("helm"), "template", "cam", CHART, "--namespace", "prod", "--values", values, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def named(documents: list[Node], kind: str, name: str) -> Node:
    (found,) = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def deployments(documents: list[Node]) -> list[Node]:
    return [document for document in documents if document["kind"] == "Deployment"]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_what_it_renders_is_valid(values: Path, tmp_path: Path) -> None:
    subprocess.run([tool("helm"), "lint", "--strict", CHART, "--values", values], check=True, capture_output=True)
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(rendered(values)))
    command = [tool("kubernetes-validate"), "--strict", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "wrong", ["image.repository=", "publicUrl=images.example.com", "objects.url=file:/data", "api.replicas=0"]
)
def test_values_that_cannot_work_are_refused(wrong: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        rendered(VALUES[0], "--set", wrong)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_pod_is_confined(values: Path) -> None:
    documents = rendered(values)
    assert len(deployments(documents)) == 3
    for deployment in deployments(documents):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        # A Service named …-edge would set CAMSERVE_EDGE_PORT to an address.
        assert pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert {f"CAMSERVE_{name.upper()}" for name in Settings.model_fields} >= environment.keys()
        # A supervisor kills after both times and what is over after them.
        needs_s = float(environment["CAMSERVE_LAME_DUCK_S"]) + float(environment["CAMSERVE_DRAIN_S"]) + 5
        assert pod["terminationGracePeriodSeconds"] > needs_s
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    budgets = {each["metadata"]["name"] for each in documents if each["kind"] == "PodDisruptionBudget"}
    assert budgets == {"cam-api", "cam-worker", "cam-edge"}


def test_only_edges_reach_the_replicas_and_nothing_inside_is_reached() -> None:
    documents = rendered(VALUES[0])
    (rule,) = named(documents, "NetworkPolicy", "cam-api")["spec"]["ingress"]
    (source,) = rule["from"]
    edge = named(documents, "Deployment", "cam-edge")["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= edge.items()
    assert rule["ports"] == [{"port": "grpc"}, {"port": "internal"}]
    replicas = named(documents, "NetworkPolicy", "cam-replicas")["spec"]
    blocks = [peer["ipBlock"] for rule in replicas["egress"] for peer in rule.get("to", [])]
    (world,) = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(world["except"])


def test_pods_follow_the_queues() -> None:
    documents = rendered(next(path for path in VALUES if path.stem == "all"))
    api = named(documents, "HorizontalPodAutoscaler", "cam-api")["spec"]["metrics"][0]
    worker = named(documents, "HorizontalPodAutoscaler", "cam-worker")["spec"]["metrics"][0]
    assert api["pods"]["metric"]["name"] == "camserve_engine_queue"
    assert worker["external"]["metric"]["name"] == "camserve_job_items_queued"
    assert "replicas" not in named(documents, "Deployment", "cam-api")["spec"]


def pod(deployment: Node, folder: Path, address: str, secrets: dict[str, dict[str, str]]) -> tuple[Part, Node]:
    """A pod as a process: its volumes are folders, its secrets files and variables."""
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    folder.mkdir(parents=True)
    volumes = {}
    for volume in spec["volumes"]:
        place = volumes[volume["name"]] = folder / "volumes" / volume["name"]
        place.mkdir(parents=True)
        if "secret" in volume:
            kept = secrets[volume["secret"]["secretName"]]
            items = volume["secret"].get("items") or [{"key": key, "path": key} for key in kept]
            for item in items:
                (place / item["path"]).write_text(kept[item["key"]])
    settings = image_environment()
    for each in container["env"]:
        source = each.get("valueFrom", {})
        if reference := source.get("secretKeyRef"):
            settings[each["name"]] = secrets[reference["name"]][reference["key"]]
        elif source.get("resourceFieldRef"):
            settings[each["name"]] = "1"
        else:
            settings[each["name"]] = each["value"]
    places = {mount["mountPath"]: str(volumes[mount["name"]]) for mount in container["volumeMounts"]}
    # Where one volume is mounted inside another.
    (volumes["data"] / "keys").symlink_to(volumes["keys"]) if "keys" in volumes else None
    part = Part(deployment["metadata"]["name"], container["args"], settings, address, folder / "log", places)
    return part, container


def passes(part: Part, container: Node, probe: Node) -> bool:
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    if request := probe.get("httpGet"):
        return part.answers(ports[request["port"]], request["path"])
    if connection := probe.get("tcpSocket"):
        return part.is_open(ports[connection["port"]])
    return part.run(probe["exec"]["command"]).returncode == 0


def test_the_pods_serve_are_replaced_without_a_failed_call_and_end_in_time(tmp_path, addresses) -> None:
    data, certificate = tmp_path / "operator", tmp_path / "certificate"
    first, second, third, outside = (next(addresses) for _ in range(4))
    subprocess.run([camserve_program(), "keys", "create", "--data-dir", data], check=True)
    names = [word for name in (REPLICAS, first, second) for word in ("--name", name)]
    subprocess.run([camserve_program(), "keys", "certificate", certificate, *names], check=True)
    with s3_server(tmp_path) as bucket, valkey(tmp_path / "valkey") as store:
        secrets = {
            "camserve-redis": {"url": store.url},
            "camserve-s3": {"access-key-id": CREDENTIALS.key_id, "secret-access-key": CREDENTIALS.secret},
            "camserve-keys": {path.name: path.read_text() for path in (data / "keys").iterdir()},
            "camserve-grpc": {
                "tls.crt": (certificate / "cert.pem").read_text(),
                "tls.key": (certificate / "key.pem").read_text(),
                "ca.crt": (certificate / "ca.pem").read_text(),
            },
        }
        own = {"publicUrl": f"http://{outside}:8080", "objects.url": f"s3://{BUCKET}/chart"}
        own |= {"objects.endpoint": bucket.url, "objects.existingSecret": "camserve-s3"}
        own |= {"settings.imaging_workers": "1"}
        least = next(path for path in VALUES if path.stem == "least")
        documents = rendered(least, *(word for name, value in own.items() for word in ("--set", f"{name}={value}")))
        api, worker, edge = (named(documents, "Deployment", f"cam-{name}") for name in ("api", "worker", "edge"))
        pods = [
            pod(deployment, tmp_path / str(number), address, secrets)
            for number, (deployment, address) in enumerate(
                [(api, first), (api, second), (worker, third), (edge, outside)]
            )
        ]
        grace_s = edge["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        # What a pod keeps to itself on its own loopback is shared here.
        pods[2][0].extra["CAMSERVE_INTERNAL_PORT"] = "50072"
        pods[3][0].places |= {f"{REPLICAS}:{port}": f"{first}:{port},{second}:{port}" for port in (50051, 50052)}
        with ending([part for part, _ in pods]):
            for part, container in pods:
                part.start()
                part.wait(lambda part=part, container=container: passes(part, container, container["startupProbe"]))
            for part, container in pods:
                assert passes(part, container, container["readinessProbe"]), part.name
                assert passes(part, container, container["livenessProbe"]), part.name
            replica = pods[0][0]
            token = replica.run(["camserve", "token", "--tenant", "tests"]).stdout.strip()
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=own["publicUrl"], headers=headers, timeout=60) as caller:
                job_id = create(caller, [entry("a")]).json()["job_id"]
                assert finished(caller, job_id)["status"] == "succeeded"
                assert "X-RateLimit-Remaining" in caller.get("/v1/models").headers
            # Commands reach the internal port, which speaks TLS.
            done = replica.run(["camserve", "tenants", "set", "tests", "--rps", "900"])
            assert done.returncode == 0, done.stderr
            assert replica.run(["camserve", "models", "list"]).returncode == 0
            with calling(own["publicUrl"], headers) as heard:
                for part, container in pods[:2]:
                    assert part.end(grace_s) == 0
                    part.start()
                    ready = container["readinessProbe"]
                    part.wait(lambda part=part, container=container, ready=ready: passes(part, container, ready))
                    # As minReadySeconds does: an edge needs a moment to see it.
                    until = len(heard) + 10
                    part.wait(lambda until=until: len(heard) > until)
            assert set(heard) == {"ok"}
            for part, _ in reversed(pods):
                assert part.end(grace_s) == 0, part.log.read_text()[-2000:]
            # The edge's access log is standard output.
            lines = [line for line in pods[3][0].log.read_text().splitlines() if line.startswith("{")]
            assert any(json.loads(line).get("tenant") == "tests" for line in lines), lines[-3:]
