"""The reference page: the OpenAPI document as HTML that needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from docs.openapi.fragments import shape, words

Node = dict[str, Any]

_CODE = re.compile(r"`([^`]+)`")
_STYLE = Path(__file__).with_name("page.css")


def page(document: Node) -> str:
    """Returns the page of a document."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Node) -> Iterator[str]:
    info = document["info"]
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])}: the REST API</title>"
    yield f"<style>{_STYLE.read_text()}</style></head><body>"
    yield '<nav aria-label="Operations">' + _navigation(document) + "</nav>"
    yield f"<main><h1>{escape(info['title'])}: the REST API</h1>"
    yield f"<p>Version {escape(info['version'])}."
    yield 'The same for programs: <a href="/v1/openapi.json">OpenAPI 3.1</a>.</p>'
    yield _text(info["description"])
    for tag in document["tags"]:
        yield f'<section><h2 id="{tag["name"]}">{tag["name"]}</h2>{_text(tag["description"])}'
        for path, verb, operation in _operations(document, tag["name"]):
            yield from _operation(document, f"{verb.upper()} {path}", operation)
        yield "</section>"
    yield '<section><h2 id="events">Events that are sent to you</h2>'
    for name, verbs in document["webhooks"].items():
        yield from _operation(document, f"POST ({name})", verbs["post"])
    yield '</section><section><h2 id="messages">Messages</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield from _message(name, schema)
    yield "</section></main></body></html>"


def _navigation(document: Node) -> str:
    parts = ['<a href="#events">Events</a> <a href="#messages">Messages</a>']
    for tag in document["tags"]:
        items = "".join(
            f'<li><a href="#{operation["operationId"]}"><b>{verb.upper()}</b> {escape(path)}</a></li>'
            for path, verb, operation in _operations(document, tag["name"])
        )
        parts.append(f"<h2>{tag['name']}</h2><ul>{items}</ul>")
    return "".join(parts)


def _operations(document: Node, tag: str) -> Iterator[tuple[str, str, Node]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if tag in operation["tags"]:
                yield path, verb, operation


def _operation(document: Node, title: str, operation: Node) -> Iterator[str]:
    name = operation["operationId"]
    yield f'<article><h3 id="{name}"><a href="#{name}"><code>{escape(title)}</code></a></h3>'
    yield _text(operation["description"]) + f"<p>{_access(operation)}</p>"
    parameters = [_resolved(document, parameter) for parameter in operation.get("parameters", ())]
    if parameters:
        yield "<h4>Parameters</h4>" + _table(
            (
                f"<code>{escape(each['name'])}</code><br>{each['in']}{' · required' if each.get('required') else ''}",
                shape(each["schema"]) + _text(each["description"]),
            )
            for each in parameters
        )
    if "requestBody" in operation:
        yield "<h4>Body</h4>" + _contents(operation["requestBody"]["content"])
    yield "<h4>Answers</h4>" + _table(
        _answer(status, _resolved(document, answer)) for status, answer in operation["responses"].items()
    )
    yield "</article>"


def _access(operation: Node) -> str:
    security = operation["security"]
    if not security or {} in security:
        return "Needs no token."
    scopes = next(iter(security[0].values()))
    return f"Needs a token with the scope {words(scopes)}." if scopes else "Needs a token, whatever its scopes."


def _answer(status: str, answer: Node) -> tuple[str, str]:
    names = ", ".join(f"<code>{name}</code>" for name in answer.get("headers", {}))
    shown = _text(answer["description"])
    if status < "400":
        shown += _contents(answer.get("content", {}))
        shown += f"<p>Headers: {names}</p>" if names else ""
    return status, shown


def _contents(content: Node) -> str:
    """Shows what is alike in several media types once."""
    kinds: dict[str, list[str]] = {}
    for kind, each in content.items():
        schema = {key: value for key, value in each["schema"].items() if key != "contentMediaType"}
        kinds.setdefault(json.dumps({**each, "schema": schema}), []).append(kind)
    return "".join(_content(names, json.loads(text)) for text, names in kinds.items())


def _content(kinds: list[str], each: Node) -> str:
    schema = each["schema"]
    shown = f"<p>{words(kinds)}{': ' + shape(schema) if shape(schema) else ''}</p>"
    if "properties" in schema:
        shown += _members(schema)
    elif "description" in schema:
        shown += _text(schema["description"])
    values = [each["example"]] if "example" in each else [one["value"] for one in each.get("examples", {}).values()]
    for value in values:
        example = escape(json.dumps(value, indent=1, ensure_ascii=False), quote=False)
        shown += f"<details><summary>Example</summary><pre>{example}</pre></details>"
    return shown


def _message(name: str, schema: Node) -> Iterator[str]:
    yield f'<article><h3 id="message-{name}"><a href="#message-{name}"><code>{name}</code></a></h3>'
    yield _text(schema["description"]) + _members(schema) + "</article>"


def _members(schema: Node) -> str:
    required = schema.get("required", ())
    return _table(
        (
            f"<code>{escape(name)}</code>{'<br>required' if name in required else ''}",
            shape(member) + _text(member.get("description", "")),
        )
        for name, member in schema.get("properties", {}).items()
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th scope=row>{head}</th><td>{body}</td></tr>" for head, body in rows) + "</table>"


def _resolved(document: Node, node: Node) -> Node:
    if "$ref" in node:
        for key in node["$ref"].removeprefix("#/").split("/"):
            document = document[key]
        return document
    return node


def _text(markdown: str) -> str:
    """Returns paragraphs, lists and words in code as HTML: that is all that our comments have."""
    parts = []
    for paragraph in filter(None, markdown.strip().split("\n\n")):
        inner = _CODE.sub(r"<code>\1</code>", escape(paragraph, quote=False))
        if inner.startswith("- "):
            items = "".join(f"<li>{item}</li>" for item in inner.removeprefix("- ").split("\n- "))
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(f"<p>{inner}</p>")
    return "".join(parts)
