"""The feed, ``GET /ledger/v1/events``: every event of the log in order, from a cursor on, in pages or as a stream.

A cursor is the place after an event, and the ``id`` of the event in a stream: whoever has been cut off goes on from the
last one that he has seen, and neither misses anything nor is told anything twice. ``Last-Event-ID``, which browsers
send by themselves, beats ``after`` (chosen). An event of a stream has no name of its own, so that ``onmessage`` gets
all of them (chosen); the one called ``end`` tells why a stream ends. Nothing that goes on is ever over, so all of them
end with a reason: a slow reader, a revoked key, a stop.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import msgspec

from api import sse
from api.contracts.shape import Answer, Asked, Streamed, json_answer
from api.deps import Deps
from api.feed import REST_SECONDS, EventFilter, Page
from api.feed_shapes import Form
from api.native_queries import limit_in, only, wait_in
from api.refusals import Invalid
from api.stays import Stay
from ledger.cursors import position_cursor, position_of
from ledger.events import TYPES
from ledger.lineage import earlier

PAGE_MAX_BYTES = 8 * 2**20
FRAMES_MAX = 64
FRAMES_MAX_BYTES = 256 * 1024
"""What is made for a stream before its reader has taken what came before; a single event may be more."""
END = "end"
"""What `after` may say in place of a cursor: begin with what comes."""

NAMES = frozenset({"after", "limit", "wait", "type", "account", "envelope"})


class WrongCursor(Invalid):
    """The cursor is not one of this log, or lies beyond its end, as after a restore."""


async def events(deps: Deps, asked: Asked) -> Answer | Streamed:
    """What has been recorded beyond the cursor; without one, from the beginning."""
    only(asked, NAMES)
    wanted, limit = _wanted(asked), limit_in(asked)
    seconds = wait_in(asked, most=deps.stays.limits.wait_max_seconds)
    position = await _start(deps, asked)
    if "text/event-stream" in asked.headers.get("Accept", "").lower():
        stay = _enter(deps, asked)
        return Streamed(stay, _frames(deps, wanted, position=position, stay=stay), _farewell)
    read = partial(deps.feed.page, wanted=wanted, events_max=limit, bytes_max=PAGE_MAX_BYTES)
    page = await read(position)
    if seconds and _has_nothing(page):
        with _enter(deps, asked) as stay:
            loop = asyncio.get_running_loop()
            until = loop.time() + seconds
            while _has_nothing(page) and await _grown(deps, stay, page, seconds=until - loop.time()):
                page = await read(page.beyond)
        stay.check()
    body = {
        "events": [msgspec.Raw(one.body) for one in page.events],
        "next_cursor": position_cursor(asked.log_id, page.beyond),
        "has_more": not page.is_end,
    }
    return json_answer(200, body)


def _has_nothing(page: Page) -> bool:
    return page.is_end and not page.events


async def _frames(deps: Deps, wanted: EventFilter, *, position: int, stay: Stay) -> AsyncGenerator[bytes, None]:
    """The events as they come, and a heartbeat with the cursor when none of them fits for long.

    Raises:
        DamagedError, StorageError: as `Feed.page`.
    """
    loop, log_id = asyncio.get_running_loop(), deps.ledger.engine.log_id
    heartbeat_seconds = deps.stays.limits.heartbeat_seconds
    said_at = loop.time()
    yield sse.heartbeat(position_cursor(log_id, position))
    while stay.why is None:
        page = await deps.feed.page(position, wanted, events_max=FRAMES_MAX, bytes_max=FRAMES_MAX_BYTES)
        position = page.beyond
        if page.events:
            told = ((one.body, position_cursor(log_id, one.position)) for one in page.events)
            yield b"".join(sse.event(body, last_id=cursor) for body, cursor in told)
            said_at = loop.time()
        if page.is_end:
            await _grown(deps, stay, page, seconds=said_at + heartbeat_seconds - loop.time())
        if loop.time() >= said_at + heartbeat_seconds and stay.why is None:
            yield sse.heartbeat(position_cursor(log_id, position))
            said_at = loop.time()


async def _grown(deps: Deps, stay: Stay, page: Page, *, seconds: float) -> bool:
    """Whether the log has grown beyond *page* within *seconds*, and the reader may stay."""
    if seconds <= 0:
        return False
    await stay.wait(asyncio.sleep(REST_SECONDS), seconds=seconds)
    end = deps.ledger.engine.end
    await stay.wait(end.beyond(page.beyond, seconds=seconds), seconds=seconds)
    return end.position > page.beyond and stay.why is None


def _enter(deps: Deps, asked: Asked) -> Stay:
    return deps.stays.enter(account=asked.account, key_id=asked.key_id, is_gone=asked.is_gone, follows_log=True)


def _farewell(why: str) -> bytes:
    return sse.event(msgspec.json.encode({"reason": why}), name="end")


# Queries


def _wanted(asked: Asked) -> EventFilter:
    query = asked.query
    types = frozenset(query["type"].split(",")) if "type" in query else None
    if types is not None and not types <= TYPES:
        raise Invalid(f"type is one or more, with commas between, of {', '.join(sorted(TYPES))}", param="type")
    envelope = query.get("envelope", Form.NATIVE)
    if envelope not in set(Form):
        raise Invalid(f"envelope is one of {', '.join(Form)}", param="envelope")
    return EventFilter(types, query.get("account"), Form(envelope))


async def _start(deps: Deps, asked: Asked) -> int:
    """The position after which to begin.

    Raises:
        WrongCursor: it is none of this log, or of one that this one was restored from, or lies where they part.
    """
    text = asked.headers.get("Last-Event-ID")
    param = "after" if text is None else "Last-Event-ID"
    text = asked.query.get("after") if text is None else text
    head = await deps.ledger.engine.head()  # the end, whoever has moved it
    if text is None:
        return 0
    if text == END and param == "after":
        return head.position
    position = position_of(asked.log_id, text, earlier=earlier(deps.ledger.engine.lineage))
    if position is None:
        raise WrongCursor("this is no cursor of this log", param=param)
    if position > head.position:
        raise WrongCursor("the cursor lies beyond the end of the log", param=param)
    return position
