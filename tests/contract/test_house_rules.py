"""Rules of the house that a reader cannot check by eye."""

from __future__ import annotations

import ast
import filecmp
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from docs.generate import PAGES
from google.protobuf import json_format

from camserve.v1 import errors_pb2, health_pb2, limits_pb2, models_pb2
from camserve_server.base.errors import CATALOGUE, Reason
from camserve_server.cli.app import app
from camserve_server.rpc.policy import PolicyError, policy_of
from camserve_server.rpc.server import internal_services, services

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "camserve_server"


def test_every_rpc_has_a_policy():
    methods = [method for service in services().values() for method in service.methods]
    assert len(methods) >= 9
    open_to_all = {method.full_name for method in methods if not policy_of(method).scopes}
    assert open_to_all == {
        "camserve.v1.AuthService.GetJwks",
        "camserve.v1.AuthService.IssueToken",
        "camserve.v1.HealthService.GetHealth",
        "camserve.v1.LimitService.GetLimits",
        "camserve.v1.ObjectService.Download",
        "camserve.v1.ObjectService.PutObject",
        "camserve.v1.PlaygroundService.GetPlayground",
        "camserve.v1.PlaygroundService.GetPlaygroundFile",
        "camserve.v1.ReferenceService.GetOpenApi",
        "camserve.v1.ReferenceService.GetReferencePage",
    }
    assert not policy_of(limits_pb2.DESCRIPTOR.services_by_name["LimitService"].methods_by_name["GetLimits"]).public


def test_only_a_stream_that_proves_its_tenant_has_keys_without_a_token():
    methods = [method for service in services().values() for method in service.methods]
    keyed = {method.full_name for method in methods if policy_of(method).public and policy_of(method).operation}
    assert keyed == {"camserve.v1.ObjectService.PutObject"}


def test_the_internal_listener_is_for_administrators():
    methods = [method for service in internal_services().values() for method in service.methods]
    assert {frozenset({"admin"})} == {policy_of(method).scopes for method in methods}


def test_a_method_without_a_policy_stops_the_server():
    from grpc_health.v1 import health_pb2 as foreign

    method = foreign.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
    with pytest.raises(PolicyError, match=r"grpc\.health\.v1\.Health\.Check has no policy"):
        policy_of(method)


def test_reasons_catalogue_and_contract_agree():
    values = errors_pb2.ErrorObject.DESCRIPTOR.enum_types_by_name["Reason"].values_by_name
    in_proto = {name.replace("_", ".", 1) for name in values} - {"reason.unspecified"}
    assert {reason.value for reason in Reason} == in_proto
    assert set(CATALOGUE) == set(Reason)


def test_comments_of_the_contract_tell_the_status_of_every_reason():
    text = (ROOT / "protos/camserve/v1/errors.proto").read_text().splitlines()
    for reason, entry in CATALOGUE.items():
        value = next(
            i for i, line in enumerate(text) if line.strip().startswith(reason.value.replace(".", "_", 1) + " =")
        )
        assert f"{entry.status} {entry.type}, {entry.grpc}." in text[value - 1]


def test_every_message_of_the_catalogue_is_short_ascii():
    for entry in CATALOGUE.values():
        assert entry.message.isascii()
        assert len(entry.message) < 100


def test_regenerating_the_protos_changes_nothing(tmp_path):
    generate = runpy.run_path(str(ROOT / "protos/generate.py"))["generate"]
    generate(tmp_path / "python")
    fresh = sorted(
        path.relative_to(tmp_path / "python") for path in (tmp_path / "python").rglob("*.py*") if path.is_file()
    )
    committed = ROOT / "gen/python"
    kept = sorted(
        path.relative_to(committed)
        for path in committed.rglob("*.py*")
        if path.is_file() and path.suffix in (".py", ".pyi")
    )
    assert fresh == kept
    _, differing, missing = filecmp.cmpfiles(
        committed, tmp_path / "python", [str(path) for path in kept], shallow=False
    )
    assert not differing
    assert not missing


def test_describing_the_protos_to_clients_changes_nothing(tmp_path):
    described = tmp_path / "camserve.binpb"
    subprocess.run([sys.executable, ROOT / "protos/generate_stubs.py", described], check=True)
    assert described.read_bytes() == (ROOT / "clients/camserve.binpb").read_bytes()


def test_the_environment_is_read_in_one_file():
    readers = []
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                readers.append(path.relative_to(SERVER).as_posix())
    assert set(readers) == {"base/config.py"}


def test_json_carries_enum_values_as_the_contract_spells_them():
    version = models_pb2.ModelVersion(state=models_pb2.ModelVersion.ready, golden=models_pb2.ModelVersion.passed)
    document = json_format.MessageToDict(version, preserving_proto_field_name=True)
    assert (document["state"], document["golden"]) == ("ready", "passed")
    health = health_pb2.GetHealthResponse(status=health_pb2.GetHealthResponse.serving)
    assert json_format.MessageToDict(health)["status"] == "serving"


def test_cancellation_is_never_swallowed():
    """grpc.aio leaks memory where a handler catches CancelledError without raising it again."""
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type and "CancelledError" in ast.unparse(node.type):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises, f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_of_the_docs_are_current(page):
    assert (ROOT / "docs" / page).read_text() == PAGES[page]()


def test_commands_of_the_readme_are_targets_and_commands():
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", text)) <= targets
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"bin/camserve ([a-z]+)", text)) <= commands
