"""The OpenAPI document by itself: valid, whole, and true to its examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.openapi import DOCUMENT, conforms, operations

from camserve_server.base.errors import CATALOGUE, Reason
from camserve_server.edge.descriptors import methods
from camserve_server.rpc.policy import policy_of
from camserve_server.rpc.server import services

# Seen in logs only, or over the internal listener.
UNTOLD = {Reason.CLIENT_CLOSED, Reason.PLAN_NOT_FOUND, Reason.METHOD_NOT_ALLOWED, Reason.ACCESS_DENIED}


def test_the_document_is_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_route_of_the_edge_is_an_operation() -> None:
    routes = {(binding.template, binding.verb.lower()) for method in methods() for binding in method.bindings}
    assert {(path, verb) for path, verb, _ in operations()} == routes


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_security_is_that_of_the_policy() -> None:
    policies = {method.name: policy_of(method) for service in services().values() for method in service.methods}
    for _, _, operation in operations():
        policy = policies[operation["operationId"].removesuffix("Head")]
        asked = [{*next(iter(each.values()))} for each in operation["security"] if {"bearer"} & each.keys()]
        assert asked == ([] if policy.public else [set(policy.scopes)]), operation["operationId"]


def test_every_reason_that_callers_can_meet_is_told() -> None:
    told = set(re.findall(r"`([a-z]+(?:\.[a-z0-9_]+)?)`: ", json.dumps(DOCUMENT)))
    assert {reason.value for reason in Reason} - {reason.value for reason in UNTOLD} <= told


def test_errors_stand_at_the_status_of_the_catalogue() -> None:
    statuses = {reason.value: str(entry.status) for reason, entry in CATALOGUE.items()}
    for _, _, operation in operations():
        for status, answer in operation["responses"].items():
            for schema in answer.get("content", {}).get("application/json", {}).get("schema", {}).get("allOf", [])[1:]:
                for code in schema["properties"]["error"]["properties"]["code"]["enum"]:
                    assert statuses[code] == status


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    places = [(operation["operationId"], operation) for _, _, operation in operations()]
    places += [(name, verbs["post"]) for name, verbs in DOCUMENT["webhooks"].items()]
    for name, operation in places:
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for kind, content in part.get("content", {}).items():
                values = [content["example"]] if "example" in content else []
                values += [each["value"] for each in content.get("examples", {}).values()]
                for value in values:
                    yield f"{name} {kind}", content["schema"], value


def test_examples_are_as_their_schemas_say() -> None:
    assert len({name for name, _, _ in examples()}) >= 40
    for _, schema, value in examples():
        conforms(value, schema)


@pytest.mark.parametrize("name", ["ErrorObject", "InferResponse", "Job", "Upload", "JobEnded"])
def test_a_schema_refuses_what_it_does_not_describe(name: str) -> None:
    with pytest.raises(AssertionError):
        conforms({}, {"$ref": f"#/components/schemas/{name}"})


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        node: Any = DOCUMENT
        for key in reference.split("/"):
            node = node[key]
        assert node
