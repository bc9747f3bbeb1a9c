"""The configuration as it is generated."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from camserve_server.base.errors import CATALOGUE
from camserve_server.edge.descriptors import Binding, methods
from camserve_server.edge.render import fill, render
from camserve_server.edge.routes import routes
from camserve_server.edge.settings import EdgeSettings


@pytest.fixture
def settings(tmp_path: Path) -> EdgeSettings:
    return EdgeSettings(run_dir=tmp_path / "run", log_dir=tmp_path / "logs", issuer="https://i.test", audience="a")


def _bound(path: Path) -> set[str]:
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    return {
        f"/{file.package}.{service.name}/{method.name}"
        for file in files.file
        for service in file.service
        for method in service.method
        if method.options.HasExtension(annotations_pb2.http)
    }


def test_each_method_is_bound_in_exactly_one_descriptor_set(settings: EdgeSettings, tmp_path: Path) -> None:
    render(settings, tmp_path / "out")
    json_bound, raw_bound = (_bound(tmp_path / "out" / name) for name in ("json.binpb", "raw.binpb"))
    assert not json_bound & raw_bound
    assert json_bound | raw_bound == {method.path for method in methods()}
    assert "/camserve.v1.InferenceService/InferUpload" in raw_bound
    assert "/camserve.v1.InferenceService/Infer" in json_bound


def test_every_public_method_and_no_other_is_exempt_from_tokens(settings: EdgeSettings, tmp_path: Path) -> None:
    config = yaml.safe_load(render(settings, tmp_path / "out").read_text())
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (jwt,) = (each for each in manager["http_filters"] if each["name"] == "envoy.filters.http.jwt_authn")
    *exempt, last = jwt["typed_config"]["rules"]
    assert last == {"match": {"prefix": "/"}, "requires": {"provider_name": "built_in"}}
    assert not [rule for rule in exempt if "prefix" in rule["match"] or "requires" in rule]
    matches = [rule["match"] for rule in exempt]
    for method in methods():
        expected = [{"path": method.path}]
        for binding in method.bindings:
            expected.append(
                {"safe_regex": {"regex": binding.regex}} if binding.variables else {"path": binding.template}
            )
        assert all((each in matches) is method.public for each in expected), method.label


def test_the_listener_is_hardened(settings: EdgeSettings, tmp_path: Path) -> None:
    # What a request can show is tested with requests; these bound what a flood of them can do.
    config = yaml.safe_load(render(settings, tmp_path / "out").read_text())
    assert "pipe" in config["admin"]["address"]
    assert config["layered_runtime"]["layers"][0]["static_layer"]["http.max_requests_per_io_cycle"] == 1
    listener, keys = config["static_resources"]["listeners"]
    assert "pipe" in keys["address"]
    assert listener["address"]["socket_address"]["address"] == "127.0.0.1"
    assert listener["per_connection_buffer_limit_bytes"] <= 1 << 20
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["request_headers_timeout"] == "10s"
    assert manager["http2_protocol_options"]["max_concurrent_streams"] <= 128
    assert "%LOCAL_REPLY_BODY%" not in str(config)


def test_a_template_is_filled_node_by_node() -> None:
    template = {"a": "${x}", "b": ["${x}", "${nothing}"], "c": "${nothing}", "d": "in ${x} text"}
    assert fill(template, {"x": {"y": 1}, "nothing": None}) == {
        "a": {"y": 1},
        "b": [{"y": 1}],
        "d": "in ${x} text",
    }
    with pytest.raises(ValueError, match="'other'"):
        fill({"a": "${other}"}, {})


def test_ids_have_their_form_in_the_pattern_and_names_have_any() -> None:
    pattern = Binding("GET", "/v1/webhooks/{webhook_id}:test", False).regex
    assert re.fullmatch(pattern, "/v1/webhooks/wh_0123456789abcdef:test")
    assert not re.fullmatch(pattern, "/v1/webhooks/wh_0123456789abcde:test")
    pattern = Binding("GET", "/v1/models/{model}/labels", False).regex
    assert re.fullmatch(pattern, "/v1/models/any name!/labels")
    assert not re.fullmatch(pattern, "/v1/models/a/b/labels")


def test_settings_that_cannot_work_are_refused(settings: EdgeSettings, tmp_path: Path) -> None:
    for wrong in (
        dataclasses.replace(settings, run_dir=tmp_path / ("d" * 100)),
        dataclasses.replace(settings, tls_cert_file=tmp_path / "cert.pem"),
    ):
        with pytest.raises(ValueError, match=r"socket|certificate"):
            render(wrong, tmp_path / "out")


def test_no_message_of_the_catalogue_is_a_command_to_envoy() -> None:
    # Envoy replaces %NAME% in the bodies it sends.
    for entry in CATALOGUE.values():
        assert "%" not in entry.message
        assert entry.message.isascii()


def test_only_reads_are_retried(settings: EdgeSettings) -> None:
    for route in routes(methods(), settings):
        reads = any(
            header["string_match"]["safe_regex"]["regex"] in ("GET", "HEAD")
            for header in route["match"].get("headers", ())
            if header["name"] == ":method"
        )
        assert reads is ("retry_policy" in route.get("route", {})), route["name"]


def test_reflection_has_no_route_unless_configured(settings: EdgeSettings) -> None:
    def names(reflection: bool) -> list[str]:
        return [route["name"] for route in routes(methods(), dataclasses.replace(settings, reflection=reflection))]

    assert not [name for name in names(False) if name.startswith("grpc.")]
    assert [name for name in names(True) if name.startswith("grpc.")]
