"""A browser's own ``EventSource`` follows the feed, and goes on where it was when its stream ends.

It can show no key, so the page comes from a server of its own that passes the stream on and adds the header, as the
README advises. Chromium is called by its name on the path; where there is none, this is skipped.
"""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse, ClientSession, web

from ledger.task import Status
from tests.builders import ENGINES
from tests.serving import Service, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PAGE = """<!doctype html><script>
const told = (what) => fetch("/told", {method: "POST", body: JSON.stringify(what)});
const source = new EventSource("/events");
source.onmessage = (event) => told({id: event.lastEventId, event: JSON.parse(event.data)});
</script>"""


class Front:
    """The page's own server: the page, the feed with the key added, and what the page tells."""

    def __init__(self, service: Service, session: ClientSession) -> None:
        self._service, self._session = service, session
        self.told: list[dict[str, Any]] = []
        self.began_after: list[str | None] = []
        self._passing: ClientResponse | None = None

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._pass_on)
        app.router.add_post("/told", self._tell)
        return app

    def cut(self) -> None:
        """The stream that is passed on breaks off."""
        assert self._passing is not None
        self._passing.close()

    async def until(self, count: int) -> None:
        """Returns once the page has told so much."""
        async with asyncio.timeout(60):
            while len(self.told) < count:  # noqa: ASYNC110 - the page tells nobody else
                await asyncio.sleep(0.02)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _tell(self, request: web.Request) -> web.Response:
        self.told.append(await request.json())
        return web.Response(status=204)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        seen = request.headers.get("Last-Event-ID")
        self.began_after.append(seen)
        headers = {"Authorization": f"Bearer {self._service.operator}", "Accept": request.headers["Accept"]}
        if seen is not None:
            headers["Last-Event-ID"] = seen
        target = f"http://127.0.0.1:{self._service.port}/ledger/v1/events"
        passed = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with self._session.get(target, headers=headers) as self._passing:
            assert self._passing.content_type == "text/event-stream"
            await passed.prepare(request)
            with suppress(ClientError):
                async for some in self._passing.content.iter_any():
                    await passed.write(some)
        return passed


@asynccontextmanager
async def fronted(service: Service) -> AsyncIterator[tuple[Front, int]]:
    async with ClientSession() as session:
        front = Front(service, session)
        runner = web.AppRunner(front.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield front, runner.addresses[0][1]
        finally:
            await runner.cleanup()


@asynccontextmanager
async def browsing(url: str, profile: Path) -> AsyncIterator[None]:
    """Chromium on a page, headless; it and its helpers end with this."""
    assert CHROMIUM is not None
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    )
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, url, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
async def test_a_browsers_event_source_follows_the_feed_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with serving(await ENGINES["sqlite"].open(tmp_path)) as service:
        await service.create(input={"prompt": "a ship\nat sea, \N{SNOWMAN}"})
        async with fronted(service) as (front, port), browsing(f"http://127.0.0.1:{port}/", tmp_path / "profile"):
            await front.until(await service.position())
            await service.bring(Status.COMPLETED)
            seen = await service.position()
            await front.until(seen)
            front.cut()
            await service.bring(Status.FAILED)
            await front.until(await service.position())
        log = (await service.native("GET", "/events?limit=200")).json()["events"]
    assert sorted(front.told, key=lambda one: one["event"]["position"]) == [
        {"id": event["cursor"], "event": event} for event in log
    ]
    assert front.began_after == [None, log[seen - 1]["cursor"]]
