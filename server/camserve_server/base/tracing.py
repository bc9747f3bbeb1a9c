"""Traces: spans of OpenTelemetry, and the W3C context that comes in and goes out.

Nothing is recorded until `start_tracing`. The context of a caller is known either way, so that logs name its trace and
webhooks carry it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Value = str | bool | int | float

CONTEXT_HEADERS: Final = frozenset({"traceparent", "tracestate"})
_NS_PER_MS: Final = 1_000_000
_EXPORT_TIMEOUT_S: Final = 5
_LAST_EXPORT_S: Final = 3.0
_TRACER: Final = trace.get_tracer("camserve")
_W3C: Final = TraceContextTextMapPropagator()


def start_tracing(endpoint: str, *, ratio: float, instance: str) -> Callable[[], None]:
    """Sends spans to an OTLP endpoint (`http://host:port`, gRPC) from now on; returns what sends the last and ends it.

    Of traces that begin here `ratio` (0 to 1) are recorded; for others their caller has decided. `instance` tells
    replicas apart. What cannot be sent is lost, and nothing waits for it. May be called once in a process.
    """
    # Here, because its libraries cost memory that nothing else needs.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http:"), timeout=_EXPORT_TIMEOUT_S)
    return record_to(exporter, ratio=ratio, instance=instance)


def record_to(exporter: SpanExporter, *, ratio: float, instance: str) -> Callable[[], None]:
    """As `start_tracing`, to any exporter."""
    about = {"service.name": "camserve", "service.version": version("camserve"), "service.instance.id": instance}
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)), resource=Resource.create(about), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def end() -> None:
        # A collector that does not answer must not hold up the end of the process.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(_LAST_EXPORT_S)

    return end


@contextlib.contextmanager
def entered(name: str, caller: Mapping[str, str], attributes: Mapping[str, Value]) -> Iterator[None]:
    """A span of a call, in the trace that its caller's headers name or in one of its own."""
    with _TRACER.start_as_current_span(
        name,
        _W3C.extract(caller) if caller else None,
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ):
        yield


@contextlib.contextmanager
def continued(name: str, caller: str, attributes: Mapping[str, Value], *, calls: bool = False) -> Iterator[None]:
    """A span of work that a call left behind, in that call's trace and with a link to it.

    `caller` is what `traceparent` returned then; `calls` says that the work is to call somebody else.
    """
    context = _W3C.extract({"traceparent": caller})
    left_by = trace.get_current_span(context).get_span_context()
    links = [Link(left_by)] if left_by.is_valid else []
    kind = SpanKind.CLIENT if calls else SpanKind.CONSUMER
    with _TRACER.start_as_current_span(name, context, kind=kind, attributes=attributes, links=links):
        yield


@contextlib.contextmanager
def part(name: str, attributes: Mapping[str, Value] | None = None, *, calls: bool = False) -> Iterator[None]:
    """A span within the one that is recorded now, nothing where none is; `calls` says that it calls somebody else."""
    if not trace.get_current_span().is_recording():
        yield
        return
    kind = SpanKind.CLIENT if calls else SpanKind.INTERNAL
    with _TRACER.start_as_current_span(name, kind=kind, attributes=attributes):
        yield


def took(*parts: tuple[str, float]) -> None:
    """Adds parts that were measured elsewhere, such as in another process: names and milliseconds, in their order.

    The last of them has just ended.
    """
    if not trace.get_current_span().is_recording():
        return
    begins = time.time_ns() - int(sum(took_ms for _, took_ms in parts) * _NS_PER_MS)
    for name, took_ms in parts:
        ends = begins + int(took_ms * _NS_PER_MS)
        _TRACER.start_span(name, start_time=begins).end(ends)
        begins = ends


def note(attributes: Mapping[str, Value]) -> None:
    """Adds what became known to the span that is recorded now."""
    trace.get_current_span().set_attributes(attributes)


def note_failure(code: str) -> None:
    """Marks the span that is recorded now as failed by a code of the catalogue."""
    span = trace.get_current_span()
    span.set_status(Status(StatusCode.ERROR, code))


def traceparent() -> str:
    """Returns the context to hand on, as the W3C header spells it; empty where there is none."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent", "")


def ids() -> dict[str, str]:
    """Returns the ids of the trace and the span that this is part of, for logs; nothing where there is none."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def exemplar() -> dict[str, str] | None:
    """Returns what leads from a measured value to its trace, None where that is not recorded."""
    context = trace.get_current_span().get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id)} if context.trace_flags.sampled else None
