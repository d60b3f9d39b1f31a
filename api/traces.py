"""A span for each request, where OpenTelemetry is installed (the extra ``otel``) and asked for.

A span is made when its request has been answered, with the times at which it began and ended, as a child of the one
that the client names in ``traceparent``. So a service without traces pays for one comparison a request. Where spans go
is told by OpenTelemetry's own environment variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and so on). Alternative beaten:
OpenTelemetry's instrumentation of aiohttp's servers, which hooks into `web.Application`; there is none here.

No span has a key, an account, an id of a task or a body.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.logs import Answered

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

BROKEN_MIN = 500
"""From this status on the fault is ours."""


class NotInstalledError(Exception):
    """Traces are asked for, and the extra that makes them is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "traces need OpenTelemetry: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )


class Traces:
    """Where spans are made."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - an extra

        self._tracer: Tracer = provider.get_tracer("task-ledger")
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, line: Answered, headers: Mapping[str, str], *, began_us: int) -> None:
        """Make the span of a request that began at *began_us* (Unix microseconds) and was answered as *line* says."""
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415 - an extra

        told = {name: value for name in ("traceparent", "tracestate") if (value := headers.get(name)) is not None}
        known = line.route is not None
        attributes: dict[str, str | int] = {
            "http.request.method": line.method if known else "_OTHER",
            "http.response.status_code": line.status,
            "task_ledger.contract": line.contract,
            "task_ledger.request_id": line.request_id,
        }
        if line.route is not None:
            attributes["http.route"] = line.route
        if line.refusal is not None:
            attributes["error.type"] = line.refusal
        span = self._tracer.start_span(
            f"{line.method} {line.route}" if known else "HTTP",
            context=self._propagator.extract(told),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=began_us * 1000,
        )
        if line.status >= BROKEN_MIN:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=(began_us + line.took_us) * 1000)


@contextmanager
def exported() -> Iterator[Traces]:
    """Traces that are sent where the environment says, in the background, and to their end when it is left.

    Raises:
        NotInstalledError: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NotInstalledError from error
    provider = TracerProvider(resource=Resource.create({"service.name": "task-ledger"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Traces(provider)
    finally:
        provider.shutdown()
