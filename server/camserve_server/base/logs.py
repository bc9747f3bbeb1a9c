"""Logs: one JSON line per event, with the ids of the request and of the trace that it belongs to."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from camserve_server.base import tracing
from camserve_server.base.telemetry import LOG_FAILURES


def _dump(event: dict[str, object], **_: object) -> str:
    return orjson.dumps(event, default=repr).decode()


def _with_trace(_: object, __: str, event: EventDict) -> EventDict:
    event.update(tracing.ids())
    return event


_DESCRIBED: Final[tuple[Processor, ...]] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _with_trace,
)
_AS_JSON: Final = structlog.processors.JSONRenderer(serializer=_dump)


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Writes every log event as one JSON line to `stream` (default: standard error).

    A line that cannot be written is lost and counted: a full disk must not fail the calls that would be told of.
    """
    lossy: Any = _Lossy(stream or sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_DESCRIBED,
            structlog.processors.format_exc_info,
            _AS_JSON,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(lossy),
        cache_logger_on_first_use=True,
    )
    # What libraries log comes in lines of the same kind.
    handler = logging.StreamHandler(lossy)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_DESCRIBED, structlog.stdlib.add_logger_name, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _AS_JSON],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _Lossy:
    """As much of a text stream as loggers use."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with self._counted():
            self._stream.write(text)

    def flush(self) -> None:
        with self._counted():
            self._stream.flush()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            LOG_FAILURES.inc()
