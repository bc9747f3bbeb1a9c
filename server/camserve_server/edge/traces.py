"""The edge's part of a trace: a span for each request, in the trace that the caller's `traceparent` names."""

from __future__ import annotations

from typing import Any

from camserve_server.edge import upstream_tls, upstreams
from camserve_server.edge.settings import Collector, EdgeSettings

Node = dict[str, Any]

_CLUSTER = "collector"
_HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def tracing(settings: EdgeSettings) -> Node | None:
    """Returns how requests are traced; None without a collector."""
    if settings.collector is None:
        return None
    return {
        # Paths and queries hold ids and signatures.
        "max_path_tag_length": 0,
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": _CLUSTER}, "timeout": "1s"},
                "service_name": "camserve-edge",
                "sampler": _sampler(settings.collector),
            },
        },
    }


def cluster(settings: EdgeSettings) -> Node | None:
    """Returns where the collector is; None without one."""
    if settings.collector is None:
        return None
    places = ((settings.collector.host, settings.collector.port),)
    return {
        "name": _CLUSTER,
        "type": upstreams.discovery(places),
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP2,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "transport_socket": _transport_socket(settings.collector),
        "load_assignment": {"cluster_name": _CLUSTER, "endpoints": [{"lb_endpoints": upstreams.endpoints(places)}]},
    }


def _transport_socket(collector: Collector) -> Node | None:
    return upstream_tls.context(upstream_tls.system_ca(), collector.host, "h2") if collector.tls else None


def _sampler(collector: Collector) -> Node:
    """Returns what decides as the replicas do; without one Envoy's own decision counts more than the caller's."""
    name = "envoy.tracers.opentelemetry.samplers"
    kinds = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
    ratio = {
        "@type": f"{kinds}.TraceIdRatioBasedSamplerConfig",
        "sampling_percentage": {"numerator": round(1_000_000 * collector.ratio), "denominator": "MILLION"},
    }
    wrapped = {"name": f"{name}.trace_id_ratio_based", "typed_config": ratio}
    parent = {"@type": f"{kinds}.ParentBasedSamplerConfig", "wrapped_sampler": wrapped}
    return {"name": f"{name}.parent_based", "typed_config": parent}
