"""How the edge asks the replicas' rate limit service."""

from __future__ import annotations

from typing import Any

from camserve_server.edge import tokens, upstream_tls, upstreams
from camserve_server.edge.settings import EdgeSettings

Node = dict[str, Any]

# Tells a refusal for want of room from one for the rate.
SHED = "x-camserve-shed"
# Tells a refusal for bodies that are on their way from one for the rate.
HELD = "x-camserve-held"
_TYPE = "type.googleapis.com/envoy.extensions"


def limiter(settings: EdgeSettings) -> Node | None:
    """The filter that asks; when nobody answers requests pass, and replicas count them."""
    if not settings.limiters:
        return None
    return {
        "name": "rate_limit",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.ratelimit.v3.RateLimit",
            "domain": "camserve",
            "timeout": "0.25s",
            "rate_limited_as_resource_exhausted": True,
            "disable_x_envoy_ratelimited_header": True,
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            },
        },
    }


def descriptors(settings: EdgeSettings) -> list[Node] | None:
    """What the service is told of a request; one without a verified token has no tenant, and is not limited.

    The kind is there for a call for one image whose caller waits: that is refused for want of room, too.
    """
    if not settings.limiters:
        return None
    token = {
        "key": "envoy.filters.http.jwt_authn",
        "path": [{"key": tokens.METADATA}, {"key": settings.tenant_claim}],
    }
    actions: list[Node] = [
        {"metadata": {"descriptor_key": "tenant", "metadata_key": token}},
        {"request_headers": {"header_name": "x-request-id", "descriptor_key": "request_id"}},
        {"request_headers": {"header_name": "x-camserve-kind", "descriptor_key": "kind", "skip_if_absent": True}},
    ]
    return [{"actions": actions}]


def cluster(settings: EdgeSettings) -> Node | None:
    """The replicas' internal listeners."""
    if not settings.limiters:
        return None
    tls = settings.limiter_tls
    secured = {"transport_socket": upstream_tls.context(tls.ca_file, tls.server_name, "h2")} if tls else {}
    return {
        **secured,
        "name": "limits",
        "type": upstreams.discovery(settings.limiters),
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_pending_requests": 4096, "max_requests": 4096}]},
        # With none left requests pass at once, as when nobody answers.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # One that hangs would cost each request it is asked about the time that the edge waits.
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "live"},
            }
        ],
        "outlier_detection": {"consecutive_5xx": 5, "interval": "1s", "base_ejection_time": "1s"},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "limits",
            "endpoints": [{"lb_endpoints": upstreams.endpoints(settings.limiters)}],
        },
    }
