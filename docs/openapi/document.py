"""The OpenAPI document as a whole."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from camserve.v1 import errors_pb2
from camserve_server.core.tokens import SCOPES
from camserve_server.edge.descriptors import Binding
from docs.openapi import answers, bodies, events, headers
from docs.openapi.comments import comments, first_sentence
from docs.openapi.methods import Described, described
from docs.openapi.parameters import parameters
from docs.openapi.schemas import Schemas
from docs.openapi.sharing import share_errors

Node = dict[str, Any]

_ROOT = Path(__file__).parents[2]
_DESCRIPTION = """\
Classifies images and explains the answer with a Grad-CAM heatmap.

Every call but the public ones carries a token: `Authorization: Bearer <jwt>`. JSON members have the names of the
protos; 64-bit integers are strings in answers, and may be strings or numbers in requests; members that are not known
are ignored, parameters of the query that are not known are refused. An empty text is as if it were not there. Members
of an answer that are not required may be absent.

Every error has the form of `Error`. New codes may come: treat one that you do not know by its status. A path that there
is not is 404 `route.not_found`, a verb that a path does not take 405 `method.not_allowed` with `Allow`; without a valid
token both are 401.
"""
_SCOPES = {
    "inference.read": "See models and uploads.",
    "inference.write": "Classify and upload images.",
    "jobs.read": "See jobs and their results.",
    "jobs.write": "Create and cancel jobs.",
    "webhooks.read": "See webhooks and their deliveries.",
    "webhooks.write": "Register, change and remove webhooks.",
}
_ORDER = ("path", "query", "header")


def document() -> Node:
    """Returns the document; raises ValueError where the protos say what it cannot express."""
    schemas = Schemas()
    paths = _paths(schemas)
    shared = share_errors(paths)
    schemas.reference(errors_pb2.ErrorObject.DESCRIPTOR, sent=False)
    sent, received = headers.components()
    made = {**schemas.made(), **answers.components(), **events.components()}
    return {
        "openapi": "3.1.0",
        "info": _info(),
        "servers": [{"url": "/", "description": "Where this document comes from."}],
        "tags": _tags(),
        "paths": paths,
        "webhooks": events.webhooks(),
        "components": {
            "schemas": dict(sorted(made.items())),
            "responses": shared,
            "parameters": sent,
            "headers": received,
            "securitySchemes": _security_schemes(),
        },
    }


def text() -> str:
    """Returns the document as JSON."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _info() -> Node:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    return {
        "title": "camserve",
        "version": project["version"],
        "summary": "Image classification with Grad-CAM heatmaps.",
        "description": _DESCRIPTION,
        "license": {"name": "Apache 2.0", "identifier": project["license"]},
    }


def _tags() -> list[Node]:
    services = {each.service: each.method.service for each in described()}
    return [{"name": name, "description": comments()[full]} for name, full in services.items()]


def _security_schemes() -> Node:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token of the built-in issuer or of the external one that is configured.",
        },
        "clientCredentials": {
            "type": "oauth2",
            "description": "Lets a client fetch such a token by itself.",
            "flows": {
                "clientCredentials": {
                    "tokenUrl": "/oauth2/token",
                    "scopes": {scope: _SCOPES[scope] for scope in SCOPES},
                }
            },
        },
        "client": {"type": "http", "scheme": "basic", "description": "The id and the secret of a client."},
    }


def _paths(schemas: Schemas) -> Node:
    groups: dict[tuple[str, str], list[tuple[Described, Binding]]] = {}
    for each in described():
        for binding in each.method.bindings:
            groups.setdefault((binding.template, binding.verb.lower()), []).append((each, binding))
    paths: Node = {}
    for (template, verb), parts in groups.items():
        paths.setdefault(template, {})[verb] = _operation(parts, schemas)
    return paths


def _operation(parts: list[tuple[Described, Binding]], schemas: Schemas) -> Node:
    first, binding = parts[0]
    # A second verb of the same method needs a name of its own.
    again = binding != first.method.bindings[0]
    operation: Node = {
        "operationId": first.name + (binding.verb.title() if again else ""),
        "tags": [first.service],
        "summary": first_sentence(first.comment) + (", without its bytes" if again else ""),
        "description": "\n\n".join([first.comment, *(_by_type(part) for part, _ in parts[1:])]),
        "security": _security(first),
    }
    found: list[Node] = []
    for part, each in parts:
        found += [parameter for parameter in parameters(part, each, schemas) if parameter not in found]
    if found:
        operation["parameters"] = sorted(found, key=lambda parameter: _ORDER.index(parameter.get("in", "header")))
    if binding.has_body:
        operation["requestBody"] = bodies.request_body([part for part, _ in parts], schemas)
    operation["responses"] = answers.responses(parts, schemas)
    return operation


def _by_type(described: Described) -> str:
    """Returns the comment of a method that shares its path and verb with another, apart by the type of the body."""
    types = ", ".join(f"`{kind}`" for kind in described.method.consumes)
    return f"With a body of the type {types}:\n\n{described.comment}"


def _security(described: Described) -> list[Node]:
    if described.name == "IssueToken":
        return [{"client": []}, {}]
    if described.policy.public:
        return []
    scopes = list(described.policy.scopes)
    return [{"bearer": scopes}, {"clientCredentials": scopes}]
