"""The demo worker: takes queued tasks over HTTP like any other, and carries them through.

What it owes the ledger, and shows how to pay: every report carries an ``event_id``, so that one sent twice, because
the connection broke or the service restarted, counts once; an answer that tells of a cancel stops the work and is
confirmed; a task that is over is left alone. At its start it goes on with what an earlier worker of its name left.
"""

import asyncio
import itertools
import math
import random
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeVar
from uuid import uuid4

import aiohttp
import msgspec

from scripts.demo.plan import Next, Report, View, after, plan

TASKS = "/ledger/v1/tasks"
PAGE_MAX = 200
POLL_SECONDS = 0.5
ANSWER_SECONDS_MAX = 30
REFUSED_SECONDS = 60.0
"""How long a task is passed over whose report was refused."""
WAITING_MAX = 10_000
"""Queued tasks that are remembered until it is their turn."""
BACKOFF_SECONDS, BACKOFF_MAX_SECONDS = 0.1, 5.0

UNAVAILABLE = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same request is sent again."""
KEY_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class KeyRefused(Exception):
    """The ledger does not take the worker's key: nothing can be done with it."""


class RequestRefused(Exception):
    """A request was refused for good, as when another worker has the task; or what answers is no ledger."""


class Habits(NamedTuple):
    """How the worker works."""

    name: str
    pace_seconds: float
    """Between two reports of a task."""
    delay_seconds: float = 0
    """How long a task stays queued before it is taken."""
    concurrency: int = 4
    fail_share: float = 0
    seed: int = 0


class Worker:
    """Takes tasks off the queue and carries them through, several at a time."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        key: str,
        habits: Habits,
        *,
        tell: Callable[[View, str], None] = lambda _, __: None,
    ) -> None:
        """*tell* hears what became of each task."""
        self._session, self._url, self._habits, self._tell = session, url.rstrip("/"), habits, tell
        self._headers = {"Authorization": f"Bearer {key}"}
        self._active: set[str] = set()
        self._due: OrderedDict[str, float] = OrderedDict()
        self._freed = asyncio.Event()
        self._unreachable = False

    async def run(self, count: int | None = None) -> None:
        """Work until *count* tasks are done; None: for ever.

        Raises:
            KeyRefused: the ledger does not take the key.
            RequestRefused: it does not show its queue; perhaps it is no ledger.
        """
        try:
            async with asyncio.TaskGroup() as group:
                await self._take_all(group, math.inf if count is None else count)
        except ExceptionGroup as errors:
            refused = errors.subgroup((KeyRefused, RequestRefused))
            raise (errors if refused is None else _first(refused)) from None

    async def _take_all(self, group: asyncio.TaskGroup, count: float) -> None:
        """Begin *count* tasks: first those that were left running, then from the queue, the oldest first."""
        left = [task async for task in self._tasks("running") if task.worker == self._habits.name]
        taken = 0
        while taken < count:
            free = int(min(self._habits.concurrency - len(self._active), count - taken))
            chosen, left = left[:free], left[free:]
            if len(chosen) < free:
                chosen += await self._ripe(free - len(chosen))
            for task in chosen:
                self._active.add(task.id)
                group.create_task(self._carry_through(task))
            taken += len(chosen)
            if taken < count:
                await self._pause()

    async def _ripe(self, wanted: int) -> list[View]:
        """At most *wanted* queued tasks whose time has come."""
        now, ripe = asyncio.get_running_loop().time(), list[View]()
        async for task in self._tasks("queued"):
            if len(ripe) == wanted:
                break
            if task.id not in self._active and self._due.setdefault(task.id, now + self._habits.delay_seconds) <= now:
                ripe.append(task)
                del self._due[task.id]
        while len(self._due) > WAITING_MAX:
            self._due.popitem(last=False)
        return ripe

    async def _pause(self) -> None:
        """Until a task is done, or it is time to look at the queue again."""
        self._freed.clear()
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._freed.wait()
        except TimeoutError:
            return

    async def _carry_through(self, task: View) -> None:
        try:
            self._tell(task, await self._work(task))
        except RequestRefused as refused:
            self._due[task.id] = asyncio.get_running_loop().time() + REFUSED_SECONDS
            self._tell(task, f"left alone: {refused}")
        finally:
            self._active.discard(task.id)
            self._freed.set()

    async def _work(self, task: View) -> str:
        """Report step by step, as long as the answers let it; what became of the task."""
        habits = self._habits
        dice = random.Random(f"{habits.seed} {task.id}")  # noqa: S311 - made-up results, the same for the same seed
        reports = plan(task, worker=habits.name, dice=dice, fail_share=habits.fail_share)
        for number, report in enumerate(reports):
            if number:
                await asyncio.sleep(habits.pace_seconds)
            answer = await self._report(task, report)
            match after(answer):
                case Next.CONFIRM:
                    return (await self._report(task, {"type": "cancelled"})).status
                case Next.LEAVE:
                    return answer.status
                case Next.GO_ON:
                    pass
        raise RequestRefused(f"the task is {answer.status} after its last report")

    async def _report(self, task: View, report: Report) -> View:
        body = msgspec.json.encode({**report, "event_id": uuid4().hex})
        return _read(await self._ask("POST", f"{TASKS}/{task.id}/events", body=body), View)

    async def _tasks(self, status: str) -> AsyncIterator[View]:
        """All tasks of this status, oldest first."""
        query = {"status": status, "order": "asc", "limit": str(PAGE_MAX)}
        while True:
            page = _read(await self._ask("GET", TASKS, query=query), _Page)
            for task in page.tasks:
                yield task
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    async def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        """The answer's body; the very same request is sent until there is one.

        Raises:
            KeyRefused, RequestRefused: the answer is no.
        """
        for attempt in itertools.count():
            wait_seconds = min(BACKOFF_SECONDS * 2 ** min(attempt, 16), BACKOFF_MAX_SECONDS)
            try:
                async with self._session.request(
                    method, self._url + path, params=query, data=body, headers=self._headers
                ) as response:
                    answer = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._reached(error)
            else:
                self._reached(None)
                if response.status < HTTPStatus.BAD_REQUEST:
                    return answer
                if response.status not in UNAVAILABLE:
                    raise _refusal(response.status, answer)
                wait_seconds = max(wait_seconds, _retry_after(response.headers))
            await asyncio.sleep(wait_seconds)
        raise AssertionError("the count has no end")

    def _reached(self, error: Exception | None) -> None:
        """Say once that the ledger does not answer, and once that it does again."""
        if error is not None and not self._unreachable:
            print(f"{self._url} does not answer, trying again: {str(error) or type(error).__name__}", file=sys.stderr)
        if error is None and self._unreachable:
            print(f"{self._url} answers again", file=sys.stderr)
        self._unreachable = error is not None


T = TypeVar("T")


class _Page(msgspec.Struct):
    tasks: list[View]
    next_cursor: str | None


def _read(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(f"this is not the answer of a ledger: {error}") from None


def _refusal(status: int, answer: bytes) -> Exception:
    """The refusal in the ledger's own words, if it has any."""
    try:
        problem = msgspec.json.decode(answer, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = {}
    reason = " ".join(str(part) for part in (status, problem.get("code"), problem.get("detail")) if part)
    return KeyRefused(reason) if status in KEY_REFUSED else RequestRefused(reason)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return min(float(text), BACKOFF_MAX_SECONDS) if text.isascii() and text.isdigit() else 0.0


def _first(errors: BaseException) -> BaseException:
    return _first(errors.exceptions[0]) if isinstance(errors, BaseExceptionGroup) else errors


def open_session() -> aiohttp.ClientSession:
    """A client for a worker."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX))
