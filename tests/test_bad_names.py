"""What a route reads of its query and its headers, in every way that makes no sense.

Nobody lists here which route reads what: the requests are watched while they are carried out. A route that begins to
read a name that has no row in `WRONG` or `FREE` fails, and so does a row that no route reads.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest

from api.contracts.shape import Asked, Browse
from ledger.cursors import position_cursor
from ledger.memory import MemoryEngine
from ledger.task import Status
from tests.samples import FILES, SAMPLES
from tests.serving import ROUTES, Route, Service, serving
from tests.test_bad_input import READS_BODY, TOLERANT, WANTS_KEY, Target, refused, target
from tests.wire import Reply


class Name(NamedTuple):
    """A name that the routes of a contract read, in ``query`` or ``header``."""

    contract: str
    place: str
    name: str

    def __str__(self) -> str:
        return f"{self.contract} {self.place} {self.name}"


NUMBERS = ["", "x", "1.0", "-1", "+1", "1e1", "%D9%A1", "%EF%BC%91", "1%00", "%201", "9" * 30, "9" * 5000]
CURSORS = ["", "x", "%00", "%FF", "AAAA", "A" * 10_000]
TIMES = ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "1767323045", "2026-02-30T00:00:00Z", "%FF"]
INSTANTS = [
    "2026-13-01",
    "2026-1-2",
    "1969-12-31",
    *(text for text in TIMES if text not in {"2026-01-02", "1767323045"}),
]
"""Where a date alone is its midnight; a bare number may be a place."""
FLAGS = ["", "yes", "1", "TRUE", "%00"]
KEYS: list[str | bytes] = ["", "x" * 256, "x" * 10_000, b"\xff\xfe", b"k\xed\xa0\x80"]
VERSIONS: list[str | bytes] = ["2", '"2', '2"', '"x"', 'W/"2"', '"-1"', '"2", "3"', f'"{"9" * 30}"', "", b"\xff"]

FOREIGN = position_cursor("another", 0)
"""A cursor of another log."""

Wrong = list[str] | list[str | bytes]
WRONG: dict[Name, Wrong] = {
    Name("lemondata", "header", "Idempotency-Key"): KEYS,
    Name("bytespike", "query", "limit"): [*NUMBERS, "0", "101"],
    Name("bytespike", "query", "cursor"): CURSORS,
    Name("bytespike", "query", "page"): [*NUMBERS, "0", "10001"],
    Name("bytespike", "query", "page_size"): [*NUMBERS, "0", "101"],
    Name("chunkr", "header", "Idempotency-Key"): KEYS,
    Name("chunkr", "query", "include_chunks"): FLAGS,
    Name("chunkr", "query", "base64_urls"): FLAGS,
    Name("chunkr", "query", "limit"): [*NUMBERS, "0", "1001"],
    Name("chunkr", "query", "page"): ["1", *(f"{number}&limit=1" for number in ("0", *NUMBERS))],
    Name("chunkr", "query", "sort"): ["", "up", "DESC"],
    Name("chunkr", "query", "statuses"): ["", "Queued", "Starting,", "starting", "%FF"],
    Name("chunkr", "query", "task_types"): ["", "Walk", "Parse,", "%FF"],
    Name("chunkr", "query", "start"): TIMES,
    Name("chunkr", "query", "end"): TIMES,
    Name("chunkr", "query", "cursor"): CURSORS,
    Name("beatra", "header", "Idempotency-Key"): KEYS,
    Name("beatra", "query", "limit"): [*NUMBERS, "0", "101"],
    Name("beatra", "query", "cursor"): CURSORS,
    Name("beatra", "query", "order"): ["", "up", "DESC", "asc,desc"],
    Name("beatra", "query", "status"): ["", "cancelled", "absent", "Queued", "queued,running", "%FF"],
    Name("beatra", "query", "expand"): ["", "error", "input,", "All", "%FF"],
    Name("beatra", "query", "created_after"): TIMES,
    Name("beatra", "query", "created_before"): TIMES,
    Name("ledger", "header", "Idempotency-Key"): [*KEYS, '""', '"', 'a"b', "ключ".encode()],
    Name("ledger", "header", "If-Match"): VERSIONS,
    Name("ledger", "query", "limit"): [*NUMBERS, "0", "201"],
    Name("ledger", "query", "cursor"): CURSORS,
    Name("ledger", "query", "after"): [*CURSORS, "END", FOREIGN],
    Name("ledger", "header", "Last-Event-ID"): ["", "x", "end", "AAAA", "A" * 10_000, FOREIGN],
    Name("ledger", "query", "wait"): [*NUMBERS, "61", "0.5"],
    Name("ledger", "query", "type"): ["", "Created", "created,", "created;completed", "%FF"],
    Name("ledger", "query", "envelope"): ["", "CloudEvents", "native,cloudevents", "%FF"],
    Name("ledger", "query", "order"): ["", "up", "DESC"],
    Name("ledger", "query", "status"): ["", "absent", "done", "Queued"],
    Name("ledger", "query", "stalled"): ["", "false", "True", "1", "%FF"],
    Name("ledger", "query", "follows"): ["", "x", "task_", "%00", "%FF", "019b4e5a-7000-8000-8000-00000000000"],
    Name("ledger", "query", "state"): ["", "Dead", "dead,waiting", "%FF"],
    Name("ledger", "query", "life"): ["", "Open", "open,explained", "%FF"],
    Name("ledger", "query", "kind"): ["", "Amount", "amount,late", "%FF"],
    Name("ledger", "query", "provider"): ["", "x" * 129, "x" * 10_000, "%00", "%0A", "a%07", "%FF"],
    Name("ledger", "query", "new_provider"): ["", "True", "1", "yes", "%FF"],
    Name("ledger", "query", "replaces"): ["", "x", "0" * 63, "0" * 65, "A" * 64, "x" * 10_000, "%FF"],
    Name("ledger", "header", "Content-Type"): [
        "",
        "text/plain",
        "application/json",
        "text/csv2",
        "multipart/form-data",
    ],
    Name("ledger", "query", "by"): ["", "week", "Day", "account,day", "%FF"],
    Name("ledger", "query", "since"): [*INSTANTS, "1767323045"],
    Name("ledger", "query", "until"): [*INSTANTS, "1970-01-01", "2026-01-01&since=2026-01-01"],
    Name("ledger", "query", "clock"): ["", "wall", "Effective", "%FF"],
    Name("ledger", "query", "at"): [*INSTANTS, "-1", "+1", "1e1", "%D9%A1", "9" * 18, "9" * 5000],
}
FREE = {
    Name("chunkr", "header", "X-Stainless-Lang"),
    Name("chunkr", "header", "Content-Type"),  # what is no form is read as JSON
    Name("beatra", "query", "capability"),
    Name("ledger", "query", "account"),
    Name("ledger", "query", "model"),
    Name("ledger", "header", "If-None-Match"),
    Name("ledger", "header", "Accept"),
}
"""Names that any text is taken for: it fits something, or nothing."""


class Watched(Mapping[str, str]):
    """A query, or headers, in which it is noted what is looked for."""

    def __init__(self, held: Mapping[str, str], note: Callable[[str], None]) -> None:
        self._held, self._note = held, note

    def __getitem__(self, name: str) -> str:
        self._note(name)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


async def well(aim: Target) -> Reply:
    """What *aim* answers to a good request that brings no JSON: a file, or nothing."""
    route, service = aim.route, aim.service
    if str(route) not in FILES:
        return await aim.hit(b"")
    query, kind, file = FILES[str(route)]
    told = (("Content-Type", kind),)
    return await service.ask(route.method, route.path + query, key=aim.key, body=file, headers=told)


class Reads:
    """What the service has looked for of late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._found: set[tuple[str, str]] = set()
        monkeypatch.setattr("api.service.Asked", self._watched)

    def _watched(self, *, query: Mapping[str, str], headers: Mapping[str, str], **fields: Any) -> Asked:  # noqa: ANN401
        return Asked(
            query=Watched(query, lambda name: self._found.add(("query", name))),
            headers=Watched(headers, lambda name: self._found.add(("header", name))),
            **fields,
        )

    async def of(self, service: Service, route: Route) -> set[Name]:
        """What *route* looks for, when it is asked in every good way."""
        found: set[tuple[str, str]] = set()
        for sample in SAMPLES[str(route)] if route in READS_BODY else [None]:
            aim = await target(service, route)
            self._found.clear()
            reply = await well(aim) if sample is None else await aim.hit(msgspec.json.encode(sample))
            assert reply.status < 500, reply
            found |= self._found
        return {Name(route.contract, place, name) for place, name in found}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine()) as running:
        yield running


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def test_every_name_that_a_route_reads_has_a_row_and_every_row_is_read(service: Service, reads: Reads) -> None:
    read = {name for route in ROUTES for name in await reads.of(service, route)}
    assert read == WRONG.keys() | FREE
    assert not WRONG.keys() & FREE


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_what_a_name_cannot_stand_for_is_refused(service: Service, reads: Reads, route: Route) -> None:
    names = await reads.of(service, route) - FREE
    aim = await target(service, route)
    position = await service.position()
    good = msgspec.json.encode(SAMPLES[str(route)][0]) if route in READS_BODY else b""
    query, kind, good = FILES.get(str(route), ("", "", good))
    headers = [("Content-Type", kind)] if kind else []
    for name in names:
        for value in WRONG[name]:
            if name.place == "header":
                told = [(name.name, value)]
                reply = await service.ask(
                    route.method, route.at(aim.name) + query, key=aim.key, body=good, headers=told
                )
            else:
                path = f"{route.at(aim.name)}?{name.name}={value!s}"
                path += "" if name.name == "provider" else query.replace("?", "&")
                reply = await service.ask(route.method, path, key=aim.key, body=good, headers=headers)
            assert await refused(aim, reply, position=position, told=f"{name} {value[:40]!r}")


LISTS = [route for route in ROUTES if isinstance(route.operation, Browse) and route.contract != "chunkr"]


@pytest.mark.parametrize("route", LISTS, ids=str)
async def test_a_list_refuses_a_name_that_nobody_knows(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for query in ("nobody_knows=1", "limit=1&page=2", "Limit=1", "=1", "%FF=1", "a/b~c=1"):
        reply = await service.ask(route.method, f"{route.at(aim.name)}?{query}", key=aim.key)
        assert await refused(aim, reply, position=position, told=query)


ODD = ["{0}=1&{0}=2", "{0}=1&limit=1&{0}=1", "{0}=1&%{1:02x}{2}=2", "{0}=%ff", "{0}=a%C3", "{0}=%ed%a0%80"]
"""A name that is given twice, once in another way, and one whose value is not UTF-8."""


@pytest.mark.parametrize("route", [route for route in WANTS_KEY if route.contract not in TOLERANT], ids=str)
async def test_a_name_that_is_given_twice_or_is_not_utf_8_is_refused(
    service: Service, reads: Reads, route: Route
) -> None:
    read = {name.name for name in await reads.of(service, route) if name.place == "query"}
    aim = await target(service, route)
    position = await service.position()
    for name in read | {"nobody_knows"}:
        for odd in ODD:
            query = odd.format(name, ord(name[0]), name[1:])
            reply = await service.ask(route.method, f"{route.at(aim.name)}?{query}", key=aim.key)
            assert await refused(aim, reply, position=position, told=query)
            if route.contract == "ledger" and route.method != "HEAD":
                told = reply.json()
                assert (reply.status, told["code"], told["param"]) == (422, "invalid_request", name), query


async def test_vendors_that_pass_over_what_they_do_not_know_take_the_first_of_two(service: Service) -> None:
    task = await service.bring(Status.QUEUED, "chunkr")
    path, key = "/chunkr/api/v1/task/" + task["public_id"], await service.key("chunkr")
    for query, status in (("base64_urls=true&base64_urls=x", 200), ("base64_urls=x&base64_urls=true", 400)):
        assert (await service.ask("GET", f"{path}?{query}", key=key)).status == status
    task = await service.bring(Status.QUEUED, "lemondata")
    path, key = "/lemondata/v1/tasks/" + task["public_id"], await service.key("lemondata")
    assert (await service.ask("GET", f"{path}?a=1&a=%ff", key=key)).status == 200
