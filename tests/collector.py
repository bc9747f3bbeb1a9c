"""A collector of traces: it speaks OTLP over gRPC and keeps what comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Span:
    """One span that came; ids are hexadecimal, times nanoseconds."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begins: int
    ends: int
    failed: bool
    about: dict[str, object]
    links: tuple[tuple[str, str], ...]


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What came so far."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request, context):  # noqa: N802
        with self.changed:
            for of in request.resource_spans:
                service = _plain(of.resource.attributes).get("service.name", "")
                self.spans += [_span(service, span) for scope in of.scope_spans for span in scope.spans]
            self.changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def wait(self, trace_id: str, holds: Callable[[set[str]], bool], within_s: float = 30) -> list[Span]:
        """Returns the spans of a trace once their names are what is waited for."""
        with self.changed:
            names = lambda: {span.name for span in self.of(trace_id)}  # noqa: E731
            assert self.changed.wait_for(lambda: holds(names()), within_s), names()
        return self.of(trace_id)


def _span(service: str, span) -> Span:
    links = tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links)
    return Span(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
        _plain(span.attributes),
        links,
    )


def _plain(attributes) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    seen = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(seen, server)
    seen.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield seen
    finally:
        server.stop(None).wait()
