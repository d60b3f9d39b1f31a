"""A row of callbacks: P20, how long it takes from a report to its callback while 50 receivers of the account hang.

The yardstick is the answer to the same report, which is given once it is durable: what a callback takes beyond it is
the way through the queue. All is asked of one loop here, 100 reports a second of 5,000 live tasks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from statistics import median

from aiohttp import ClientSession, TCPConnector, web
from aiohttp.resolver import ThreadedResolver

from scripts.benches.load import LoadError
from scripts.benches.measure import Effort, Figure, Pair, Row
from scripts.benches.servers import ACCOUNT, Ours, ours

LIVE_TASKS, STUCK = 5000, 50
REPORTS_PER_SECOND = 100
AT_ONCE = 64
WAIT_SECONDS = 60.0
LOOPBACK = '[callbacks]\nhttp = true\nports = []\nnetworks = ["127.0.0.0/8"]\n'
CONTRACT = "beatra"
MODEL = "suno-5.5"


class _Receiver:
    """Notes when each task was told of."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.news = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        at = time.perf_counter()
        body = await request.json()
        self.told.setdefault(body["metadata"]["number"], at)
        self.news.set()
        return web.Response(status=204)


async def _hang(_: web.BaseRequest) -> web.Response:
    await asyncio.sleep(WAIT_SECONDS)
    return web.Response(status=204)


@asynccontextmanager
async def _listening(answer: object) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.0)  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()  # noqa: S104 - all addresses of loopback
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


class _Work:
    """A worker with its tasks."""

    def __init__(self, session: ClientSession, server: Ours) -> None:
        host, port = server.address
        self._session, self._base = session, f"http://{host}:{port}/ledger/v1"
        self._headers = {"Authorization": f"Bearer {server.worker}"}

    async def create(self, number: int, url: str) -> str:
        """A live task."""
        body = {
            "account": ACCOUNT,
            "contract": CONTRACT,
            "model": MODEL,
            "callback_url": url,
            "metadata": {"number": str(number)},
        }
        task: str = (await self._post("/tasks", body, expects=201))["id"]
        return task

    async def complete(self, task: str) -> None:
        await self._post(f"/tasks/{task}/events", {"type": "completed", "output": {"assets": []}}, expects=200)

    async def _post(self, path: str, body: object, *, expects: int) -> dict[str, str]:
        async with self._session.post(self._base + path, json=body, headers=self._headers) as answer:
            if answer.status != expects:
                raise LoadError(f"{path} is answered {answer.status}: {await answer.text()}")
            told: dict[str, str] = await answer.json()
            return told


async def _created(work: _Work, count: int, url: str) -> list[tuple[int, str]]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[int, str]:
        async with gate:
            return number, await work.create(number, url)

    return list(await asyncio.gather(*map(one, range(count))))


async def _round(work: _Work, receiver: _Receiver, tasks: list[tuple[int, str]]) -> Pair:
    """Report these, evenly, and wait for their callbacks: medians in milliseconds."""
    began: dict[str, float] = {}
    answered: dict[str, float] = {}

    async def one(number: int, task: str) -> None:
        began[str(number)] = time.perf_counter()
        await work.complete(task)
        answered[str(number)] = time.perf_counter()

    async with asyncio.TaskGroup() as group, asyncio.timeout(WAIT_SECONDS):
        for number, task in tasks:
            group.create_task(one(number, task))
            await asyncio.sleep(1 / REPORTS_PER_SECOND)
    async with asyncio.timeout(WAIT_SECONDS):
        while not began.keys() <= receiver.told.keys():
            receiver.news.clear()
            await receiver.news.wait()
    taken = median(receiver.told[name] - at for name, at in began.items())
    return Pair(Figure(taken * 1000), Figure(median(answered[name] - at for name, at in began.items()) * 1000))


def told(effort: Effort) -> Iterator[Pair]:
    """Rounds of reports, with the stuck ones stuck from before the first of them on."""
    each = max(int(REPORTS_PER_SECOND * effort.seconds), 10)
    with ours(LOOPBACK) as server, asyncio.Runner() as runner:
        queue: asyncio.Queue[Pair | None] = asyncio.Queue()

        async def everything() -> None:
            receiver = _Receiver()
            plain = TCPConnector(resolver=ThreadedResolver())  # nothing is looked up here
            async with (
                ClientSession(connector=plain) as session,
                _listening(receiver.answer) as url,
                _listening(_hang) as stuck,
            ):
                work = _Work(session, server)
                port = stuck.rpartition(":")[2]
                for number in range(STUCK):  # each address of loopback is a receiver of its own
                    await work.complete(await work.create(-1, f"http://127.0.1.{number + 1}:{port}"))
                count = max(LIVE_TASKS, each * (effort.rounds + 1))
                tasks = iter(await _created(work, count, url))
                await _round(work, receiver, list(islice(tasks, each)))
                for _ in range(effort.rounds):
                    queue.put_nowait(await _round(work, receiver, list(islice(tasks, each))))

        running = runner.get_loop().create_task(everything())

        async def next_pair() -> Pair | None:
            got = asyncio.ensure_future(queue.get())
            await asyncio.wait({got, running}, return_when=asyncio.FIRST_COMPLETED)
            if got.done():
                return got.result()
            got.cancel()
            await running
            return None

        while (pair := runner.run(next_pair())) is not None:
            yield pair


ROWS = (
    Row("P20", "report to callback / to answer", "ms", pass_line=15.0, goal=8.0, measure=told, more_is_better=False),
)
