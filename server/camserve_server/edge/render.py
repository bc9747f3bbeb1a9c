"""Renders the edge's configuration from its template, the protos and the settings."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from camserve_server.base import bundle
from camserve_server.edge import (
    descriptors,
    keys_address,
    limits,
    replies,
    routes,
    tokens,
    traces,
    upstream_tls,
    upstreams,
)
from camserve_server.edge.descriptors import Method
from camserve_server.edge.settings import EdgeSettings, duration

Node = dict[str, Any]

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
# The smallest room for a socket's path in any kernel we run on (macOS), its closing zero not counted.
SOCKET_PATH_LIMIT_BYTES = 103
_TYPE = "type.googleapis.com/envoy.extensions"


def render(settings: EdgeSettings, out_dir: Path) -> Path:
    """Writes envoy.yaml, the descriptor sets and the Lua filters to `out_dir`; returns the path of envoy.yaml.

    Raises ValueError when the settings cannot become a configuration.
    """
    for socket in settings.sockets:
        if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT_BYTES:
            raise ValueError(f"the path of the socket {socket} is longer than {SOCKET_PATH_LIMIT_BYTES} bytes")
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        raise ValueError("TLS needs both a certificate and a key")
    out_dir.mkdir(parents=True, exist_ok=True)
    for name in ("outer.lua", "token.lua", "shed.lua", "bodies.lua", "inner.lua"):
        shutil.copyfile(bundle.ENVOY / name, out_dir / name)
    methods = descriptors.methods()
    json_methods = [method for method in methods if method.takes_json]
    raw_methods = [method for method in methods if not method.takes_json]
    (out_dir / "json.binpb").write_bytes(descriptors.descriptor_set(json_methods))
    (out_dir / "raw.binpb").write_bytes(descriptors.descriptor_set(raw_methods))
    nodes = _nodes(settings, out_dir, methods, json_methods, raw_methods)
    filled = fill(yaml.safe_load((bundle.ENVOY / "envoy.yaml").read_text()), nodes)
    path = out_dir / "envoy.yaml"
    path.write_text(yaml.dump(filled, Dumper=_Dumper, sort_keys=False, width=200))
    return path


def fill(node: Any, nodes: Node) -> Any:
    """Returns `node` with every placeholder replaced by its node; None leaves the key or the item out.

    Raises ValueError for a placeholder that `nodes` lacks.
    """
    if isinstance(node, dict):
        filled = {key: fill(value, nodes) for key, value in node.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(node, list):
        return [value for value in (fill(item, nodes) for item in node) if value is not None]
    placeholder = _PLACEHOLDER.fullmatch(node) if isinstance(node, str) else None
    if placeholder is None:
        return node
    if placeholder[1] not in nodes:
        raise ValueError(f"the template names {placeholder[1]!r}, which is not rendered")
    return nodes[placeholder[1]]


class _Dumper(yaml.SafeDumper):
    """Writes every node out: Envoy's reader expands aliases into an error when there are many."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _nodes(
    settings: EdgeSettings,
    out_dir: Path,
    methods: tuple[Method, ...],
    json_methods: list[Method],
    raw_methods: list[Method],
) -> Node:
    json_set, raw_set = out_dir.resolve() / "json.binpb", out_dir.resolve() / "raw.binpb"
    streams = [method for method in json_methods if method.server_streaming and not method.raw_response]
    return {
        "admin_socket": str(settings.admin_socket),
        "keys_socket": str(settings.keys_socket),
        "listen_host": settings.listen_host,
        "listen_port": settings.listen_port,
        "access_log": str(settings.access_log),
        "log_tenant": f"%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:{tokens.METADATA}:{settings.tenant_claim})%",
        "outer_lua": str(out_dir.resolve() / "outer.lua"),
        "token_lua": str(out_dir.resolve() / "token.lua"),
        "shed_lua": str(out_dir.resolve() / "shed.lua"),
        "bodies_lua": str(out_dir.resolve() / "bodies.lua"),
        "inner_lua": str(out_dir.resolve() / "inner.lua"),
        "max_heap_bytes": settings.max_heap_bytes,
        "max_connections": settings.max_connections,
        "max_requests": settings.max_requests,
        "max_header_kb": settings.max_header_kb,
        "max_headers": settings.max_headers,
        "max_json_bytes": settings.max_json_bytes,
        "max_upload_bytes": settings.max_upload_bytes,
        "stream_idle_timeout": duration(settings.stream_idle_timeout_s),
        "tls_inspector": _tls_inspector(settings),
        "transport_socket": _transport_socket(settings),
        "local_replies": replies.local_replies(),
        "fallbacks": replies.fallbacks(),
        "cors_policy": _cors_policy(settings, methods),
        "routes": routes.routes(methods, settings),
        "token_form": tokens.form(),
        "token_providers": tokens.providers(settings),
        "token_rules": routes.token_rules(methods, tokens.requirement(settings)),
        "transcode_json": _transcoder(json_set, json_methods, settings),
        "transcode_ndjson": _transcoder(json_set, streams, settings, stream_newline_delimited=True),
        "transcode_sse": _transcoder(json_set, streams, settings, stream_sse_style_delimited=True),
        "transcode_raw": _transcoder(raw_set, raw_methods, settings) | {"ignored_query_parameters": _VALUE_MEMBERS},
        "rate_limit": limits.limiter(settings),
        "rate_limits": limits.descriptors(settings),
        "limits_cluster": limits.cluster(settings),
        "keys_routes": [{"match": {"path": tokens.KEYS_PATH}, "route": {"cluster": routes.CLUSTER, "timeout": "2s"}}],
        "issuer_cluster": keys_address.cluster(settings),
        "tracing": traces.tracing(settings),
        "collector_cluster": traces.cluster(settings),
        "replica_discovery": upstreams.discovery(settings.replicas),
        "replica_transport_socket": _replica_transport_socket(settings),
        "replica_endpoints": upstreams.endpoints(settings.replicas),
    }


# The transcoder binds no parameter inside a google.protobuf.Value; the server reads these from the path itself.
_VALUE_MEMBERS = ["grad_cam.resolution.width", "grad_cam.resolution.height"]


def _transcoder(descriptor_set: Path, methods: list[Method], settings: EdgeSettings, **print_options: bool) -> Node:
    return {
        "@type": f"{_TYPE}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptor_set),
        "services": descriptors.services(methods),
        "convert_grpc_status": True,
        # Without it the route, and so time limits and retries, would be chosen again by the RPC's path.
        "match_incoming_request_route": True,
        "query_param_unescape_plus": True,  # as every form encoder writes a space
        "print_options": {"preserve_proto_field_names": True, "always_print_primitive_fields": True, **print_options},
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_response_body_size": settings.max_response_bytes,
    }


def _cors_policy(settings: EdgeSettings, methods: tuple[Method, ...]) -> Node | None:
    if not settings.cors_origins:
        return None
    return {
        "@type": f"{_TYPE}.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in settings.cors_origins],
        "allow_methods": ", ".join(routes.verbs(methods)),
        "allow_headers": "authorization, content-type, content-md5, accept, prefer, idempotency-key, route-key, range, "
        "x-grpc-web, x-user-agent, grpc-timeout, tus-resumable, upload-length, upload-offset, upload-metadata",
        "expose_headers": "request-id, retry-after, www-authenticate, content-disposition, content-range, etag, "
        "location, tus-resumable, tus-version, tus-extension, tus-max-size, upload-offset, upload-length, "
        "upload-metadata, upload-expires, idempotency-replayed, x-ratelimit-limit, x-ratelimit-remaining, "
        "x-ratelimit-reset, preference-applied, deprecation, sunset, link, grpc-status, grpc-message, "
        "grpc-status-details-bin",
        "max_age": "600",
    }


def _tls_inspector(settings: EdgeSettings) -> Node | None:
    if settings.tls_cert_file is None:
        return None
    return {
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": f"{_TYPE}.filters.listener.tls_inspector.v3.TlsInspector"},
    }


def _transport_socket(settings: EdgeSettings) -> Node | None:
    if settings.tls_cert_file is None:
        return None
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [_certificate(settings.tls_cert_file, settings.tls_key_file)],
            },
        },
    }


def _replica_transport_socket(settings: EdgeSettings) -> Node | None:
    tls = settings.replica_tls
    if tls is None:
        return None
    certificates = None if tls.cert_file is None else [_certificate(tls.cert_file, tls.key_file)]
    return upstream_tls.context(tls.ca_file, tls.server_name, "h2", certificates)


def _certificate(cert_file: Path, key_file: Path | None) -> Node:
    return {"certificate_chain": {"filename": str(cert_file)}, "private_key": {"filename": str(key_file)}}
