"""The words in which the table of alterations is written."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conformance.tests.proxy import Alter, Exchange

DROP: Any = object()
Test = Callable[[Exchange], Any]


@dataclass(frozen=True)
class Alteration:
    """One alteration, and the checks that it makes fail: no fewer, and no others.

    `make` gives what alters, anew for each run, since some remember what passed before; `of` says of what: the
    deployment's answers, the kit's requests, or the events on their way to the receiver.
    """

    what: str
    hits: frozenset[str]
    make: Callable[[], Alter]
    of: str = "answers"


def alteration(what: str, hits: str, alter: Alter, of: str = "answers") -> Alteration:
    """An alteration that remembers nothing; `hits` are apart by blanks."""
    return Alteration(what, frozenset(hits.split()), lambda: alter, of)


def on(route: str, change: Alter, *tests: Test, ok: bool | None = None) -> Alter:
    """Changes the answers to a verb and a pattern of paths, where every test holds."""
    verb, _, pattern = route.partition(" ")

    def alter(exchange: Exchange) -> None:
        is_it = exchange.verb == verb and re.fullmatch(pattern, exchange.path)
        if is_it and (ok is None or ok == (200 <= exchange.status < 300)) and all(test(exchange) for test in tests):
            change(exchange)

    return alter


def status(code: int, content: bytes | None = None) -> Alter:
    def change(exchange: Exchange) -> None:
        exchange.status = code
        exchange.content = exchange.content if content is None else content

    return change


def header(name: str, value: str | None) -> Alter:
    """Sets a header, or drops it."""

    def change(exchange: Exchange) -> None:
        exchange.headers.pop(name, None)
        if value is not None:
            exchange.headers[name] = value

    return change


def member(path: str, value: Any) -> Alter:
    """Sets a member of the answer's JSON, or drops it; a path is of names and places in arrays, `-1` is the last."""

    def change(exchange: Exchange) -> None:
        document = exchange.said
        exchange.say(_set(document, path.split("."), value))

    return change


def _set(node: Any, path: list[str], value: Any) -> Any:
    name: Any = int(path[0]) if isinstance(node, list) else path[0]
    if isinstance(node, list) and not node:
        return node
    if len(path) == 1:
        if value is DROP:
            if isinstance(node, list) or name in node:
                del node[name]
        else:
            node[name] = value(node[name]) if callable(value) else value
    elif isinstance(node, list) or name in node:
        _set(node[name], path[1:], value)
    return node


def renamed(code: str = "other.code") -> Alter:
    return member("error.code", code)


def has_code(code: str) -> Test:
    return lambda exchange: exchange.code == code


def claims(exchange: Exchange) -> dict[str, Any]:
    """The claims of the token that was sent."""
    parts = exchange.tenant_token.split(".")
    try:
        return dict(json.loads(base64.urlsafe_b64decode(parts[1] + "==")))
    except (IndexError, ValueError):
        return {}


def of_tenant(tenant: str) -> Test:
    return lambda exchange: claims(exchange).get("tenant") == tenant


def anonymous(exchange: Exchange) -> bool:
    return "authorization" not in exchange.asked_headers


def query(pattern: str) -> Test:
    return lambda exchange: re.fullmatch(pattern, exchange.query)


def sends(name: str, pattern: str = ".*") -> Test:
    """Whether the request has a header, of that form."""
    return lambda exchange: name in exchange.asked_headers and re.fullmatch(pattern, exchange.asked_headers[name])


def says(pattern: bytes) -> Test:
    """Whether the request's body holds that."""
    return lambda exchange: re.search(pattern, exchange.asked_body, re.DOTALL)


def asks(path: str, value: Any = DROP) -> Test:
    """Whether the request's JSON has a member, of that value."""

    def test(exchange: Exchange) -> bool:
        node = exchange.asked
        for name in path.split("."):
            if not isinstance(node, dict) or name not in node:
                return False
            node = node[name]
        return value is DROP or node == value

    return test


def not_(test: Test) -> Test:
    return lambda exchange: not test(exchange)


def events_of(exchange: Exchange) -> list[dict[str, Any]]:
    """The objects of an answer's stream, of NDJSON or of server-sent events."""
    text = exchange.content.decode()
    if "event-stream" in exchange.headers.get("content-type", ""):
        return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in text.splitlines() if line]


def streamed(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Alter:
    """Changes the objects of a stream."""

    def alter(exchange: Exchange) -> None:
        objects = [json.dumps(each) for each in change(events_of(exchange))]
        if "event-stream" in exchange.headers.get("content-type", ""):
            exchange.content = "".join(f"data: {each}\n\n" for each in objects).encode()
        else:
            exchange.content = "".join(f"{each}\n" for each in objects).encode()

    return alter
