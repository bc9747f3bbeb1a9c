"""Recorded REST exchanges: a request as its caller sent it, and the shape of the answer that the caller relies on."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
RECORDED = HERE / "first_release.json"
TENANT = "compat"
# What these say is part of the contract; of other words and numbers only the kind is.
_LITERAL = {"code", "colormap", "error", "event", "format", "method", "normalization", "token_type", "type"}
# Headers of HTTP itself and of the connection.
_TRANSPORT = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding", "vary"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_PLACE = re.compile(r"\$\{(\w+)\}")
_BOUNDARY = "compat"


@dataclass
class Caller:
    """A caller of an edge, with tokens and a client from its command line."""

    edge_url: str
    camserve: Callable[..., str]
    values: dict[str, str] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = self.camserve("client", "create", "--tenant", TENANT, "--scope", "inference.read")
        client = dict(line.split("=", 1) for line in made.split())
        basic = base64.b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
        circle = base64.b64encode((HERE / "circle.png").read_bytes()).decode()
        self.values |= client | {"client_basic": basic, "circle": circle}

    def send(self, request: dict[str, Any]) -> httpx.Response:
        """Sends a recorded request and returns the answer."""
        request = json.loads(_PLACE.sub(lambda place: self.values[place[1]], json.dumps(request)))
        headers = dict(request.get("headers", {}))
        if "scopes" in request:
            headers["authorization"] = f"Bearer {self._token(request['scopes'])}"
        return httpx.request(
            request["method"],
            self.edge_url + request["path"],
            headers=headers,
            content=_content(request, headers),
            timeout=30,
        )

    def _token(self, scopes: str) -> str:
        if scopes not in self._tokens:
            self._tokens[scopes] = self.camserve("token", "--tenant", TENANT, "--scope", scopes).strip()
        return self._tokens[scopes]


def play(caller: Caller, exchanges: dict[str, dict[str, Any]], name: str) -> httpx.Response:
    """Plays an exchange, and before it the one whose answer it takes values from."""
    exchange = exchanges[name]
    if "after" in exchange:
        play(caller, exchanges, exchange["after"])
    answer = caller.send(exchange["request"])
    for value, pointer in exchange.get("keep", {}).items():
        found: Any = answer.json()
        for step in pointer.split("."):
            found = found[step]
        caller.values[value] = found.removeprefix(caller.edge_url)
    return answer


def shape_of(answer: httpx.Response) -> dict[str, Any]:
    """Returns what is kept of an answer."""
    headers = sorted(set(answer.headers) - _TRANSPORT)
    kept: dict[str, Any] = {
        "status": answer.status_code,
        "media_type": answer.headers.get("content-type"),
        "headers": [name for name in headers if not name.startswith("x-envoy")],
    }
    if answer.content and (documents := _documents(answer)) is not None:
        by_event: dict[str, list[Any]] = {}
        for document in documents:
            by_event.setdefault(document["event"], []).append(_shape(document))
        kept["events"] = {event: _merged(shapes) for event, shapes in by_event.items()}
    elif "json" in (kept["media_type"] or ""):
        kept["body"] = _shape(answer.json())
    return kept


def differences(recorded: dict[str, Any], answer: httpx.Response) -> list[str]:
    """Returns everything that a caller of the recorded answer would miss or misread; what is new is nothing of it."""
    found: list[str] = []
    if recorded["status"] != answer.status_code:
        found.append(f"the status was {recorded['status']} and is {answer.status_code}: {answer.text[:300]}")
    if recorded["media_type"] != answer.headers.get("content-type"):
        found.append(f"the media type was {recorded['media_type']} and is {answer.headers.get('content-type')}")
    found += [f"the header {name} is missing" for name in recorded["headers"] if name not in answer.headers]
    if found:
        return found
    for event, shape in recorded.get("events", {}).items():
        documents = [each for each in _documents(answer) or [] if each.get("event") == event]
        found += [] if documents else [f"the event {event} is missing"]
        found += [each for document in documents for each in _misfits(shape, document, event)]
    if "body" in recorded:
        found += _misfits(recorded["body"], answer.json(), "body")
    return found


def _content(request: dict[str, Any], headers: dict[str, str]) -> bytes | None:
    if "json" in request:
        headers.setdefault("content-type", "application/json")
        return json.dumps(request["json"]).encode()
    if "file" in request:
        return (HERE / request["file"]).read_bytes()
    if "parts" in request:
        headers["content-type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        return b"".join(_part(**part) for part in request["parts"]) + f"--{_BOUNDARY}--\r\n".encode()
    return request["text"].encode() if "text" in request else None


def _part(name: str, text: str = "", file: str = "", media_type: str = "") -> bytes:
    lines = [
        f"--{_BOUNDARY}",
        f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else ""),
    ]
    lines += [f"Content-Type: {media_type}"] if media_type else []
    data = (HERE / file).read_bytes() if file else text.encode()
    return "\r\n".join([*lines, "", ""]).encode() + data + b"\r\n"


def _documents(answer: httpx.Response) -> list[Any] | None:
    """Returns the documents of a stream, None where the answer is none."""
    match answer.headers.get("content-type"):
        case "application/x-ndjson":
            return [json.loads(line) for line in answer.text.splitlines() if line]
        case "text/event-stream":
            lines = (line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:"))
            return [json.loads(line) for line in lines]
    return None


def _shape(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _shape(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_merged([_shape(each) for each in value])] if value else []
    if key in _LITERAL and isinstance(value, str):
        return f"={value}"
    return _kind(value)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str() if _TIME.fullmatch(value):
            return "time"
        case str() if value.startswith("http"):
            return "link"
        case str():
            return "string"
        case dict() | list():
            return type(value).__name__
    return "null"


def _merged(shapes: list[Any]) -> Any:
    """Returns the one shape of several values: a key that some lack ends in `?`."""
    if all(isinstance(shape, dict) for shape in shapes):
        merged: dict[str, Any] = {}
        for key in dict.fromkeys(key.removesuffix("?") for shape in shapes for key in shape):
            having = [shape.get(key, shape.get(f"{key}?")) for shape in shapes if key in shape or f"{key}?" in shape]
            merged[key if all(key in shape for shape in shapes) else f"{key}?"] = _merged(having)
        return merged
    if all(isinstance(shape, list) for shape in shapes):
        inner = [each for shape in shapes for each in shape]
        return [_merged(inner)] if inner else []
    return shapes[0] if all(shape == shapes[0] for shape in shapes) else "string"


def _misfits(shape: Any, value: Any, where: str, *, listed: bool = False) -> Iterator[str]:
    """Yields what does not fit; of what is `listed` several times, lists may be empty in one and not in another."""
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name in value:
                yield from _misfits(inner, value[name], f"{where}.{name}", listed=listed)
            elif name == key:
                yield f"{where}.{name} is missing"
    elif isinstance(shape, list) and isinstance(value, list):
        if shape and not value and not listed:
            yield f"{where} is empty"
        for number, each in enumerate(value if shape else ()):
            yield from _misfits(shape[0], each, f"{where}[{number}]", listed=True)
    elif isinstance(shape, str) and shape.startswith("="):
        if value != shape[1:]:
            yield f"{where} was {shape[1:]} and is {value}"
    elif _kind(value) != shape and not (shape == "string" and isinstance(value, str)):
        yield f"{where} was {shape if isinstance(shape, str) else type(shape).__name__} and is {_kind(value)}"
