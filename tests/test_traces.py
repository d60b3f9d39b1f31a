"""Spans, by the SDK's own exporter in memory; skipped where the extra `otel` is not installed."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.traces import NotInstalledError, Traces, exported
from ledger.memory import MemoryEngine
from tests.http import query
from tests.processes import Server
from tests.serving import Service, serving, spelled
from tests.wire import request

trace = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` is not installed")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Spans:
    """What has been exported."""

    def __init__(self) -> None:
        self.exporter = in_memory.InMemorySpanExporter()
        provider = trace.TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(self.exporter))
        self.traces = Traces(provider)

    def take(self) -> list[Any]:
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def service(spans: Spans) -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), traces=spans.traces) as running:
        yield running


async def test_each_request_is_a_span_with_what_its_log_line_tells(service: Service, spans: Spans) -> None:
    task = await service.create()
    spans.take()
    await service.client("lemondata", query("lemondata", spelled(task["id"])))
    (span,) = spans.take()
    line = service.logged()[-1]
    assert (span.name, span.kind.name) == ("GET /lemondata/v1/tasks/{id}", "SERVER")
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/lemondata/v1/tasks/{id}",
        "task_ledger.contract": "lemondata",
        "task_ledger.request_id": line["request_id"],
    }
    assert span.end_time - span.start_time == line["took_us"] * 1000
    assert span.start_time == service.clock() * 1000
    assert span.status.status_code.name == "UNSET"


async def test_a_span_is_the_child_of_the_one_that_the_client_names(service: Service, spans: Spans) -> None:
    await service.ask("GET", "/healthz", headers=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
    (span,) = spans.take()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "00-" + "f" * 10_000])
async def test_a_parent_that_is_none_is_passed_over(service: Service, spans: Spans, header: str) -> None:
    reply = await service.ask("GET", "/healthz", headers=[("traceparent", header)])
    (span,) = spans.take()
    assert (reply.status, span.parent) == (200, None)


async def test_a_refusal_is_named_and_only_what_is_our_fault_is_an_error(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.ask("GET", "/made/up")
    (span,) = spans.take()
    assert (span.name, span.attributes["error.type"], span.status.status_code.name) == ("HTTP", "UnknownRoute", "UNSET")

    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.ledger.engine, "head", broken)
    await service.ask("GET", "/readyz")
    (span,) = spans.take()
    assert (span.attributes["error.type"], span.status.status_code.name) == ("Broken", "ERROR")


async def test_no_span_tells_of_a_key_an_account_or_a_task(service: Service, spans: Spans) -> None:
    task = await service.create(input={"prompt": "a secret"})
    await service.client("lemondata", query("lemondata", spelled(task["id"])))
    told = " ".join(span.to_json() for span in spans.take())
    for secret in (service.worker, service.operator, "acme", "a secret", task["id"], task["public_id"]):
        assert secret not in told


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(NotInstalledError, match="pip install"), exported():
        pass


async def test_the_real_server_ends_though_nobody_takes_its_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    config = tmp_path / "ledger.toml"
    config.write_text("traces = true\n")
    async with Server(tmp_path / "ledger.db", "--config", str(config)) as server:
        await server.start()
        async with server.wire() as wire:
            assert (await wire.send(request("GET", "/healthz"))).status == 200
        assert await server.stop() == 0
