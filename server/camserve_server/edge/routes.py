"""Routes and token rules, generated from the REST surface."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from camserve_server.edge import tokens
from camserve_server.edge.descriptors import Binding, Method
from camserve_server.edge.settings import EdgeSettings, duration

Node = dict[str, Any]

CLUSTER = "replicas"
_NATIVE_PATHS = ("/grpc.health.v1.Health/", "/grpc.reflection.v1.", "/grpc.reflection.v1alpha.")
_NATIVE_TYPE = {"name": "content-type", "string_match": {"safe_regex": {"regex": r"application/grpc([+;-].*)?"}}}


def _accepts(media_type: str) -> Node:
    pattern = rf"(?i)(.*[,\s])?{re.escape(media_type)}([\s;,].*)?"
    return {"name": "accept", "string_match": {"safe_regex": {"regex": pattern}}}


# By verb: which form a stream of JSON has, and which one it has for who accepts that.
_FORMS = {
    "GET": ("transcode_sse", "transcode_ndjson", _accepts("application/x-ndjson")),
    "POST": ("transcode_ndjson", "transcode_sse", _accepts("text/event-stream")),
}
# The path of such a route is the service's own words and ids, so that it may be logged.
_KNOWN_PATH = {"known_path": True}
# What JSON bodies of calls under way may have of the edge's memory, where each takes five times its bytes.
_HELD_OF_HEAP = 0.2
_NO_ENCODING = {"name": "content-encoding", "present_match": True, "invert_match": True}


def routes(methods: Iterable[Method], settings: EdgeSettings) -> list[Node]:
    """Returns every route, most special first; the last one answers 404."""
    methods = list(methods)
    return [
        *(_preflight(settings.cors_origins) if settings.cors_origins else ()),
        *(_native_route(method, settings) for method in methods),
        *(_native_prefix(prefix) for prefix in _NATIVE_PATHS if settings.reflection),
        _refusal("route.not_found", {"prefix": "/", "headers": [_NATIVE_TYPE]}, 404),
        *_rest_routes(methods, settings),
        _refusal("route.not_found", {"prefix": "/"}, 404),
    ]


def token_rules(methods: Iterable[Method], requirement: Node) -> list[Node]:
    """Returns the rules of the token filter: public methods by their exact paths, all else needs a token."""
    rules: list[Node] = []
    for method in methods:
        if method.public:
            rules.append({"match": {"path": method.path}})
            rules += [{"match": match} for match in _unique(_path_match(binding) for binding in method.bindings)]
    return [*rules, {"match": {"prefix": "/"}, "requires": requirement}]


def verbs(methods: Iterable[Method]) -> list[str]:
    """Returns every verb that some route takes."""
    return sorted({binding.verb for method in methods for binding in method.bindings})


def _preflight(origins: Iterable[str]) -> list[Node]:
    """A route that the CORS filter always answers itself: it passes over routes that answer directly."""
    asked = {"name": "access-control-request-method", "present_match": True}
    origin = {"name": "origin", "string_match": {"safe_regex": {"regex": "|".join(map(re.escape, origins))}}}
    return [
        {
            "name": "preflight",
            "match": {"prefix": "/", "headers": [_verb("OPTIONS"), origin, asked]},
            "route": {"cluster": CLUSTER},
        }
    ]


def _native_route(method: Method, settings: EdgeSettings) -> Node:
    return {
        "name": method.label,
        "match": {"path": method.path, "headers": [_NATIVE_TYPE]},
        "route": _forward(method, settings),
        "metadata": {"filter_metadata": {"outer": _KNOWN_PATH, **_shedding(method, settings)}},
        "typed_per_filter_config": _limits(method),
    }


def _native_prefix(prefix: str) -> Node:
    return {
        "name": prefix.strip("/."),
        "match": {"prefix": prefix, "headers": [_NATIVE_TYPE]},
        "route": {"cluster": CLUSTER, "timeout": "0s", "idle_timeout": "300s"},
    }


def _rest_routes(methods: list[Method], settings: EdgeSettings) -> Iterator[Node]:
    by_path: dict[str, list[tuple[Method, Binding]]] = {}
    for method in methods:
        for binding in method.bindings:
            by_path.setdefault(binding.regex, []).append((method, binding))
    # A template without variables stands before one that would match it too.
    for group in sorted(by_path.values(), key=lambda group: len(group[0][1].variables)):
        match = _path_match(group[0][1])
        for method, binding in group:
            yield from _verb_routes(method, binding, match, settings)
        with_body = sorted({binding.verb for _, binding in group if binding.has_body})
        if with_body:
            yield _refusal("media.unsupported", {**match, "headers": [_verb("|".join(with_body))]}, 415)
        allowed = sorted({binding.verb for _, binding in group})
        yield _refusal("method.not_allowed", match, 405, allow=", ".join(allowed))


def _verb_routes(method: Method, binding: Binding, match: Node, settings: EdgeSettings) -> Iterator[Node]:
    headers = [_verb(binding.verb)]
    if binding.has_body:
        headers += [_media_types(method.consumes), _NO_ENCODING]
    plain = "transcode_json"
    if method.server_streaming and not method.raw_response:
        plain, other, accepted = _FORMS[binding.verb]
        yield _rest_route(method, binding, {**match, "headers": [*headers, accepted]}, other, settings)
    transcoder = plain if method.takes_json else "transcode_raw"
    yield _rest_route(method, binding, {**match, "headers": headers}, transcoder, settings)


def _rest_route(method: Method, binding: Binding, match: Node, transcoder: str, settings: EdgeSettings) -> Node:
    content_types = {"transcode_ndjson": "application/x-ndjson", "transcode_sse": "text/event-stream"}
    metadata: Node = {"outer": dict(_KNOWN_PATH), **_shedding(method, settings)}
    if binding.has_body and transcoder != "transcode_raw":
        metadata["bodies"] = {"json": _json_bodies(settings)}
    if transcoder in content_types:
        metadata["outer"]["stream_type"] = content_types[transcoder]
    if binding.variables:
        # Compared without case and underscores, so that every spelling of a field's name is covered.
        metadata["inner"] = {"path_variables": {name.replace("_", "").lower(): True for name in binding.variables}}
    forward = _forward(method, settings)
    if binding.verb in ("GET", "HEAD"):
        forward["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,reset",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            # A replica that just died has the fewest requests, so three of four draws of a pair choose it again.
            "host_selection_retry_max_attempts": 32,
        }
    return {
        "name": method.label,
        "match": match,
        "route": forward,
        "metadata": {"filter_metadata": metadata},
        "typed_per_filter_config": {**_limits(method), transcoder: filter_config(enabled=True)},
    }


def _forward(method: Method, settings: EdgeSettings) -> Node:
    """The time limits count from the end of the request to the end of the response, so an upload may be slow."""
    forward: Node = {"cluster": CLUSTER, "timeout": "0s", "idle_timeout": duration(settings.stream_idle_timeout_s)}
    if not method.server_streaming:
        budget = settings.default_timeout_s
        if method.one_image:
            budget = settings.sync_timeout_s
        elif _has_body(method) and not method.public:
            # Images may come with it; what waits for the store only must hear of it, however short the other budget.
            budget = max(budget, settings.sync_timeout_s)
        forward["timeout"] = duration(budget + settings.timeout_grace_s)
    return forward


def _shedding(method: Method, settings: EdgeSettings) -> Node:
    """What the filter that sheds must know of a route for one image."""
    if not method.one_image:
        return {}
    return {
        "shed": {
            "one_image": {
                "claims": tokens.METADATA,
                "tenant_claim": settings.tenant_claim,
                "most_bytes": settings.sync_image_bytes,
            }
        }
    }


def _json_bodies(settings: EdgeSettings) -> Node:
    """What the filter that bounds JSON bodies of calls under way must know: the bytes are those of a worker thread."""
    all_bytes = int(_HELD_OF_HEAP * settings.worker_heap_bytes)
    return {
        "claims": tokens.METADATA,
        "tenant_claim": settings.tenant_claim,
        "most_bytes": settings.max_json_bytes,
        "all_bytes": max(all_bytes, 2 * settings.max_json_bytes),
    }


def _has_body(method: Method) -> bool:
    return any(binding.has_body for binding in method.bindings)


def _limits(method: Method) -> Node:
    return {"limit_json": filter_config(enabled=False)} if method.client_streaming else {}


def filter_config(*, enabled: bool) -> Node:
    """Returns the per-route switch of a filter."""
    switch: Node = {"config": {}} if enabled else {"disabled": True}
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", **switch}


def _refusal(name: str, match: Node, status: int, **headers: str) -> Node:
    """A route that the inner filter answers: one with a `direct_response` would pass by the rate limit."""
    metadata: Node = {"inner": {"refusal": {"status": str(status), "headers": headers}}}
    if "prefix" not in match:
        metadata["outer"] = _KNOWN_PATH
    return {
        "name": name,
        "match": match,
        "route": {"cluster": CLUSTER},
        "metadata": {"filter_metadata": metadata},
    }


def _path_match(binding: Binding) -> Node:
    return {"safe_regex": {"regex": binding.regex}} if binding.variables else {"path": binding.template}


def _verb(pattern: str) -> Node:
    return {"name": ":method", "string_match": {"safe_regex": {"regex": pattern}}}


def _media_types(consumes: Iterable[str]) -> Node:
    types = "|".join(re.escape(kind).replace(r"\*", r"[^\s;,/]+") for kind in consumes)
    return {"name": "content-type", "string_match": {"safe_regex": {"regex": rf"(?i)({types})\s*(;.*)?"}}}


def _unique(nodes: Iterable[Node]) -> list[Node]:
    kept: list[Node] = []
    for node in nodes:
        if node not in kept:
            kept.append(node)
    return kept
