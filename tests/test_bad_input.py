"""What strangers send: whatever it is, the answer is a 4xx in the contract's own shape, and the log stays as it was.

The routes come from the contracts' own tables, so a new one is under test without a line here; one that reads a body
needs a sample in ``tests/samples.py``, whose every field is then spoilt in every way.
"""

import gc
import gzip
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from api.bodies import DEPTH_MAX, read_json
from api.contracts import spellings
from api.contracts.shape import Open
from api.refusals import Invalid
from ledger.break_log import BreakLog
from ledger.ids import Digits, Spelling
from ledger.memory import MemoryEngine
from ledger.task import Status
from tests import form_bodies
from tests.form_bodies import BAD_FORMS, DECLARED, FILE, form
from tests.samples import CONFIGURED, FILES, SAMPLES
from tests.serving import ACCOUNT, CREDITED, ROUTES, VENDORS, Route, Service, serving, spelled
from tests.test_breaks import FOUND, OPEN
from tests.wire import Reply, Wire, chunked, request
from tests.worded import code_of

TAKES_FILE = [route for route in ROUTES if str(route) in FILES]
READS_BODY = [route for route in ROUTES if route.method in {"POST", "PUT", "PATCH"} and route not in TAKES_FILE]
TAKES_NO_BODY = [route for route in ROUTES if route not in READS_BODY + TAKES_FILE]
TOLERANT = {"lemondata", "chunkr"}
"""Contracts whose vendor passes over fields that it does not know."""
STRICT = [route for route in READS_BODY if route.contract not in TOLERANT]
FORMS = [route for route in READS_BODY if route.contract == "chunkr"]
"""Those that take a multipart form as well."""
WANTS_KEY = [route for route in ROUTES if not isinstance(route.operation, Open)]
HAS_ID = [route for route in ROUTES if route.has_id]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine()) as running:
        yield running


class Target:
    """A route aimed at something that exists, so that whatever slips through changes the log."""

    def __init__(self, service: Service, route: Route, *, name: str, key: str) -> None:
        self.service, self.route, self.name, self.key = service, route, name, key

    async def hit(self, body: bytes = b"", *headers: tuple[str, str | bytes], name: str | None = None) -> Reply:
        path = self.route.at(self.name if name is None else name)
        return await self.service.ask(self.route.method, path, key=self.key, body=body, headers=headers)


async def target(service: Service, route: Route, *, status: Status | None = None) -> Target:
    status = status or (Status.COMPLETED if route.method == "PATCH" else Status.QUEUED)
    contract = "lemondata" if route.contract == "ledger" else route.contract
    task = await service.bring(status, contract)
    name = route.spelling.spell(spelled(task["id"]))
    if route.about_keys:
        issued = {"account": ACCOUNT, "contract": "chunkr"}
        name = (await service.native("POST", "/keys", issued)).json()["key_id"]
    if route.about_breaks:
        await BreakLog(service.ledger.engine).open([replace(OPEN, found=replace(FOUND, about=name))], by="test")
        name = replace(FOUND, about=name).break_id
    if route.about_webhooks:
        hook = await service.ask(
            "POST", "/bytespike/api/v1/me/webhooks", key=await service.key("bytespike"), json={"url": HOOK}
        )
        name = hook.json()["id"]
    if route.about_callbacks:
        name = await called_back(service)
    return Target(service, route, name=name, key=await service.key_for(route))


HOOK = "https://example.com/hook"


async def called_back(service: Service) -> str:
    """The id of a callback that waits."""
    task = await service.bring(Status.FAILED, "bytespike", callback_url=HOOK)
    listed = (await service.native("GET", "/callbacks?state=waiting")).json()["callbacks"]
    found: str = next(one["id"] for one in listed if one["task"] == task["id"])
    return found


async def refused(aim: Target, reply: Reply, *, position: int, told: object = "") -> str:
    """The code of the refusal that *reply* must be, the log being as it was at *position*."""
    assert 400 <= reply.status < 500, (told, reply)
    assert await aim.service.position() == position, told
    if aim.route.method == "HEAD":
        return ""
    return code_of(aim.route.contract, reply)


# Bodies

FREE = {"input", "metadata", "output", "params"}
"""Fields that may hold any object: what is inside is spoilt only in ways that nothing can carry."""

NO_OBJECT = [
    b"{",
    b"}",
    b'{"',
    b"nonsense",
    b"{'reason': 1}",
    b"{} {}",
    b'{"reason": "x",}',
    b"[]",
    b"[{}]",
    b'"text"',
    b"1",
    b"true",
    b"null",
    b"NaN",
    b"<xml/>",
    b"reason=x",
    b"\x00",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"[" * 10_000 + b"]" * 10_000,
]
UNCARRIABLE = [
    b"1e400",
    b"-1e400",
    b"18446744073709551617",
    b"-18446744073709551617",
    b"9" * 5000,
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"\\u0062":2}}',
    b'{"a":"b",":c":1,":c":2}',
    b'[{"a":1},{"b":2,"b":3}]',
    b'{"a":[{"b":1},{"b":1}],"a":1}',
]
"""Values that no field takes, wherever they stand."""

WRONG_TYPES: dict[type, list[bytes]] = {
    str: [b"1", b"1.5", b"true", b"[]", b"{}"],
    float: [b'"1"', b"true", b"[]", b"{}", b"-1"],
    int: [b'"1"', b"1.5", b"true", b"[]", b"{}", b"-1"],
    bool: [b'"true"', b"1", b"0", b"[]", b"{}"],
    list: [b'"x"', b"1", b"true", b"{}", b"[1]", b"[[]]"],
    dict: [b'"x"', b"1", b"true", b"[]"],
}
NOT_AMOUNTS = [
    b"1",
    b"1.5",
    b'"1.1234567"',
    b'"-1"',
    b'"-0"',
    b'"+1"',
    b'"1e3"',
    b'" 1"',
    b'"1 "',
    b'"1\\n"',
    b'""',
    b'".5"',
    b'"1."',
    b'"01"',
    b'"0x1"',
    b'"1,5"',
    b'"1_000"',
    '"\u0661"'.encode(),  # a digit, but not one of ours
    b'"NaN"',
    b'"Infinity"',
    b'"1000000000000.000001"',
    b'"9999999999999"',
    b'"' + b"9" * 400 + b'"',
]
NOT_TIMES = [
    b"1767323045",
    b'""',
    b'"tomorrow"',
    b'"2026-02-01"',
    b'"2026-02-01T00:00:00"',
    b'"2026-02-30T00:00:00Z"',
    b'"2026-02-01T24:00:00Z"',
    b'"2026-02-01T00:00:00+01:99"',
    b'"1969-12-31T23:59:59Z"',
    b'"9999-12-31T23:59:59-23:59"',
    b'"2026-02-01T00:00:00Z "',
]
NOT_ADDRESSES = [
    b'""',
    b'"example.com"',
    b'"//example.com/"',
    b'"ftp://example.com/"',
    b'"javascript:alert(1)"',
    b'"http://"',
    b'"http://:80/"',
    b'"http://user:pw@example.com/"',
    b'"http://user@example.com/"',
    b'"http://[::1"',
    b'"http://example.com:99999/"',
    b'"http://example.com:x/"',
    b'"http://example.com/a b"',
    b'"http://example.com/\\r\\nX: y"',
    '"http://exämple.com/"'.encode(),
    b'"https://example.com/' + b"x" * 2048 + b'"',
]
NOT_NAMES = [b'""', b'"a b"', b'"a\\n"', '"ä"'.encode(), b'"' + b"x" * 129 + b'"']
FIELDS: dict[str, list[bytes]] = {
    "account": NOT_NAMES,
    "model": NOT_NAMES,
    "capability": NOT_NAMES,
    "worker": NOT_NAMES,
    "code": NOT_NAMES,
    "contract": [b'"openai"', b'""', b'"LemonData"'],
    "role": [b'"admin"', b'""', b'"Operator"'],
    "type": [b'"created"', b'"held"', b'"late-reported"', b'""', b'"Started"'],
    "kind": [b'"hologram"', b'""'],
    "url": [b"5", b"[]"],
    "field": [b'""', b'"' + b"x" * 256 + b'"'],
    "percent": [b"101", b"-1", b"40.5"],
    "estimated_seconds": [b"10000001"],
    "overlap_seconds": [b"10000001"],
    "video_seconds": [b"-1", b"1.5", b'"8"'],
    "out_task_id": [b'""', b'"a\\u0007"', b'"' + b"x" * 129 + b'"'],
    "task_id": [b"{}"],
    "event_id": [b'""', b'"' + b"x" * 256 + b'"'],
    "key": [b'""', b'"' + b"x" * 256 + b'"'],
    "estimated_credits": NOT_AMOUNTS,
    "actual_credits": NOT_AMOUNTS,
    "amount_credits": [*NOT_AMOUNTS, b'"0"', b'"0.000000"', b"null"],
    "quantity": NOT_AMOUNTS,
    "billed_amount_credits": NOT_AMOUNTS,
    "expires_at": [*NOT_TIMES, b'"2026-01-01T00:00:00Z"'],
    "effective_at": NOT_TIMES,
    "callback_url": NOT_ADDRESSES,
}
"""Ways to spoil a field, by its name, beside those that its type gives."""

BOMB = gzip.compress(b'{"a":"' + b"a" * 20_000_000 + b'"}')
TOO_LONG = b'"' + b"x" * 10_000 + b'"'
MARK = "the place to spoil"


def places(sample: object, *, inside: str = "") -> Iterator[tuple[str, object, list[str | int]]]:
    """Every field of *sample*, however deep: the field it lies in at the top, its value, and the way to it."""
    members: Iterator[tuple[str | int, object]]
    match sample:
        case dict():
            members = iter(sample.items())
        case list():
            members = iter(enumerate(sample))
        case _:
            return
    for name, value in members:
        top = inside or str(name)
        yield top, value, [name]
        for deeper_top, deeper, way in places(value, inside=top):
            yield deeper_top, deeper, [name, *way]


def spoilt(sample: dict[str, Any], way: list[str | int], value: bytes) -> bytes:
    """*sample* as JSON, with *value*, which need not be any, in the place that *way* leads to."""
    copy: Any = msgspec.json.decode(msgspec.json.encode(sample))
    inner = copy
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = MARK
    return msgspec.json.encode(copy).replace(b'"%b"' % MARK.encode(), value)


def spoilt_ways(sample: dict[str, Any]) -> Iterator[bytes]:
    """*sample* with one field spoilt, for every field and way."""
    for top, value, way in places(sample):
        name = str(way[-1])
        values = [*UNCARRIABLE]
        is_free = top in FREE and len(way) > 1
        if not is_free:
            values += WRONG_TYPES[type(value)]
        if not is_free or name in {"kind", "url"}:
            values += FIELDS.get(name, [])
        if isinstance(value, str) and not is_free:
            values.append(TOO_LONG)
        for spoil in values:
            yield spoilt(sample, way, spoil)


def test_every_route_that_reads_a_body_has_a_sample() -> None:
    assert {str(route) for route in READS_BODY} == SAMPLES.keys()


@pytest.mark.parametrize("route", READS_BODY, ids=str)
async def test_a_sample_is_taken(service: Service, route: Route) -> None:
    for sample in SAMPLES[str(route)]:
        aim = await target(service, route)
        body = sample
        if sample.keys() <= {"task_id", "out_task_id"} and "bytespike" in route.path:
            await service.create("bytespike", out_task_id=aim.name)
            body = dict.fromkeys(sample, aim.name)
        if sample.get("type") == "cancelled":
            await service.reported(aim.name, "started")
            await service.native("POST", f"/tasks/{aim.name}/cancel", {})
        if sample.get("type") == "refunded":
            await service.reported(aim.name, "charged", amount_credits="0.5", key="c1")
        if "grant" in sample:
            granted = {"amount_credits": "1", "key": sample["grant"]}
            assert (await service.native("POST", f"/accounts/{CREDITED}/grants", granted)).status == 200
        reply = await aim.hit(msgspec.json.encode(body))
        assert reply.status in {200, 201, 202}, reply


@pytest.mark.parametrize("route", READS_BODY, ids=str)
async def test_a_body_that_is_no_json_object_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for body in NO_OBJECT:
        assert await refused(aim, await aim.hit(body), position=position, told=body[:40])


@pytest.mark.parametrize("route", STRICT, ids=str)
async def test_a_field_that_nobody_knows_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for sample in SAMPLES[str(route)]:
        for further in ({"nobody_knows": 1}, {"status": "completed"}, {"held_credits": "0"}, {"version": 9}):
            body = msgspec.json.encode(sample | further)
            assert await refused(aim, await aim.hit(body), position=position, told=body)
        for inner in (b'{"meter":', b'{"code":'):
            body = msgspec.json.encode(sample).replace(inner, b'{"nobody_knows":1,' + inner[1:])
            if b"nobody_knows" in body:
                assert await refused(aim, await aim.hit(body), position=position, told=body)


@pytest.mark.parametrize("route", READS_BODY, ids=str)
async def test_a_field_with_a_value_that_it_cannot_have_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for sample in SAMPLES[str(route)]:
        for body in spoilt_ways(sample):
            assert await refused(aim, await aim.hit(body), position=position, told=body[:400])


@pytest.mark.parametrize("route", READS_BODY, ids=str)
async def test_a_field_that_is_named_twice_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for sample in SAMPLES[str(route)]:
        for name, value in sample.items():
            again = msgspec.json.encode({name: value})[1:-1]
            body = msgspec.json.encode(sample)[:-1] + b"," + again + b"}"
            assert await refused(aim, await aim.hit(body), position=position, told=body)


TWICE = [
    b'{"a": 1, "a": 1}',
    b'{"a": {"b": "x", "b": "y"}}',
    b'{"a": [{"b": 1}, {"b": 1, "c": 2, "b": 3}]}',
    b'{"": 1, "": 2}',
    '{"ä": 1, "ä": 2}'.encode(),
    b'{"a": 1, "\\u0061": 2}',  # the same name, written in another way
    b'{"a": "\\"", "b": 1, "b": 2}',
]
ONCE = [
    b'{"a": {"a": {"a": "a"}}, "b": ["a", "a"]}',
    b' { "a" : "x x" , "b" : 1.0e3, "c" : [ ] } ',
    '{"ä": "\u2028 ö", "a": ": , {"}'.encode(),
    b'{"a": "\\"a\\": ", "\\\\": "\\u0061", "b": "\\"}"}',
]


@pytest.mark.parametrize(("body", "is_refused"), [*((body, True) for body in TWICE), *((body, False) for body in ONCE)])
def test_a_name_counts_as_named_twice_within_one_object_only(body: bytes, is_refused: bool) -> None:  # noqa: FBT001
    with pytest.raises(Invalid, match="twice") if is_refused else nullcontext():
        assert read_json(body, dict[str, Any]) == json.loads(body)


@pytest.mark.parametrize("route", FORMS, ids=str)
async def test_a_form_that_is_none_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for name, bad in BAD_FORMS.items():
        reply = await aim.hit(bad.body, ("Content-Type", bad.declared))
        assert reply.status == 400, name
        assert bad.reason in await refused(aim, reply, position=position, told=name)


@pytest.mark.parametrize("route", FORMS, ids=str)
async def test_a_field_of_a_form_with_a_value_that_it_cannot_have_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for name in CONFIGURED:
        for value in (*UNCARRIABLE, b"nonsense", b"", b"\xff\xfe", b"'1'"):
            sent = form(FILE, form_bodies.field(name, "?").replace(b"?", value))
            reply = await aim.hit(sent, ("Content-Type", DECLARED))
            assert reply.status == 400, (name, value[:40])
            assert await refused(aim, reply, position=position, told=(name, value[:40]))


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_body_over_the_limit_is_refused_as_too_large(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    limit = route.operation.body_max_bytes
    for size in (limit + 1, 2 * limit, limit + 1024 * 1024):
        body = b'{"a":"' + b"a" * (size - 8) + b'"}'
        for sent, headers in ((body, ()), (chunked(body), (("Transfer-Encoding", "chunked"),))):
            reply = await aim.hit(sent, *headers)
            assert reply.status == 413, (size, headers)
            assert await refused(aim, reply, position=position)


@pytest.mark.parametrize("route", READS_BODY, ids=str)
async def test_a_body_just_within_the_limit_is_read(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    limit = route.operation.body_max_bytes
    for size in (limit - 1, limit):
        body = b'{"a":"' + b"a" * (size - 8) + b'"}'
        for sent, headers in ((body, ()), (chunked(body), (("Transfer-Encoding", "chunked"),))):
            reply = await aim.hit(sent, *headers)
            assert reply.status in {400, 422}, (size, headers)
            assert await refused(aim, reply, position=position)


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_body_that_only_claims_to_be_huge_is_refused_before_it_comes(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    headers = [("Authorization", f"Bearer {aim.key}"), ("Content-Length", "99999999999")]
    async with Wire("127.0.0.1", service.port) as wire:
        reply = await wire.send(request(route.method, route.at(aim.name), headers=headers), method=route.method)
    assert reply.status == 413
    assert await refused(aim, reply, position=position)


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_compressed_body_is_refused_unopened(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unheard-of"):
        for sent, headers in ((BOMB, ()), (chunked(BOMB), (("Transfer-Encoding", "chunked"),))):
            reply = await aim.hit(sent, ("Content-Encoding", coding), *headers)
            assert reply.status in {400, 422}, coding
            assert await refused(aim, reply, position=position, told=coding)


@pytest.mark.parametrize("route", TAKES_NO_BODY, ids=str)
async def test_a_body_where_none_is_read_changes_nothing(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    name = (await service.create())["id"].replace("0", "1") if not route.about_keys else "NoSuchKey123"
    position = await service.position()
    without = await aim.hit(name=name)
    for body in [*NO_OBJECT, b"x" * route.operation.body_max_bytes]:
        reply = await aim.hit(body, name=name)
        assert reply.status == without.status, body[:40]
        assert await service.position() == position


# Ids


def malformed(name: str, spelling: Spelling) -> Iterator[str]:
    """*name*, spelled in ways that no contract has."""
    yield from (name[1:], name[:-1], name[:-1] + "!", name + "0", name + name, "x" + name, name + ";v=1", name + ",x")
    yield from ("%20" + name, name + "%20", name + "%0A", name + "%00", name + "%2F", "%2F" + name, "%2e%2e%2F" + name)
    yield from ("%FF%FE", "%ff" + name, "%C0%80", "%ED%A0%80", "%00", "%", "%zz", "%F0%9F%90%88", "%EF%BC%90" * 32)
    yield from ("..", ".", "%2e%2e", "*", "-", "0", "null", "{id}", "'%20OR%201=1--", "%22", "x" * 10_000)
    if spelling.prefix:
        yield from (name.upper(), name.partition("_")[2], name.replace("_", "-"), name.replace("_", "__"))
    if spelling.digits is Digits.ULID:
        prefix, _, digits = name.partition("_")
        yield from (name.lower(), f"{prefix}_8{digits[1:]}", f"{prefix}_{digits[:-1]}U", f"{prefix}_{digits[:-1]}I")
    if spelling.digits is Digits.UUID:
        yield from (name.replace("-", ""), f"{{{name}}}", f"urn:uuid:{name}", name.replace("-", "_"))


@pytest.mark.parametrize("route", HAS_ID, ids=str)
async def test_an_id_in_no_spelling_of_the_contract_is_not_found(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    names = [*malformed(aim.name, route.spelling)]
    if route.contract != "ledger" and not route.about_webhooks:
        others = set(spellings()) - {route.spelling}
        names += [other.spell(spelled(aim.name)) for other in others]
    for name in set(names) - {aim.name}:
        body = msgspec.json.encode(SAMPLES[str(route)][0]) if route in READS_BODY else b""
        reply = await aim.hit(body, name=name)
        assert reply.status == 404, name[:80]
        assert await refused(aim, reply, position=position, told=name[:80])


@pytest.mark.parametrize("path", ["/bytespike/v1/tasks/query", "/bytespike/v1/tasks/cancel"])
async def test_an_id_in_the_body_in_no_spelling_of_the_contract_is_not_found(service: Service, path: str) -> None:
    route = next(route for route in ROUTES if route.path == path)
    aim = await target(service, route)
    position = await service.position()
    for name in [*malformed(aim.name, route.spelling), *(other.spell(spelled(aim.name)) for other in spellings())]:
        for field in ("task_id", "out_task_id"):
            if (field, name) == ("task_id", aim.name):
                continue
            reply = await aim.hit(msgspec.json.encode({field: name}))
            expected = {404} if field == "task_id" or len(name) <= 128 else {400}
            assert reply.status in expected, name[:80]
            assert await refused(aim, reply, position=position, told=name[:80])


@pytest.mark.parametrize("value", ["%00", "a%0Ab", "%F0%9F%90%88", "'%20OR%201=1--", "x" * 9000])
@pytest.mark.parametrize("path", ["/tasks?account=", "/tasks?model=", "/keys?account="])
async def test_a_filter_that_nothing_fits_finds_nothing(service: Service, path: str, value: str) -> None:
    await service.create()
    reply = await service.native("GET", path + value)
    assert (reply.status, next(iter(reply.json().values()))) == (200, [])


# Headers


def no_keys(key: str) -> list[str | bytes]:
    """Values of ``Authorization`` that are no key, although they look like *key*."""
    head, _, secret = key.rpartition("_")
    last = "1" if key[-1] == "0" else "0"
    return [
        "",
        "Bearer",
        "Bearer ",
        "Bearer null",
        f"Basic {key}",
        f"Token {key}",
        f"Bearer{key}",
        f"Bearer:{key}",
        f"Bearer {key[:-1]}",
        f"Bearer {key[:-1]}{last}",
        f"Bearer {key}{key}",
        f"Bearer {key.lower()}",
        f"Bearer {key.upper()}",
        f"Bearer {head}",
        f"Bearer {secret}",
        f"Bearer {head}_{secret[:-6]}",
        f"Bearer {key} {key}",
        f"Bearer {key}, Bearer {key}",
        f'Bearer "{key}"',
        f"Bearer tl_{'0' * 12}_{'0' * 49}",
        f"Bearer {'x' * 10_000}",
        b"Bearer \xff\xfe",
        "Bearer ключ".encode(),
        b"\xff",
    ]


@pytest.mark.parametrize("route", WANTS_KEY, ids=str)
async def test_whatever_is_no_key_opens_nothing(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    for value in no_keys(aim.key):
        reply = await service.ask(route.method, route.at(aim.name), headers=[("Authorization", value)])
        assert reply.status == 401, value[:80]
        assert reply.headers["www-authenticate"] == "Bearer"
        assert await refused(aim, reply, position=position, told=value[:80])


@pytest.mark.parametrize("route", WANTS_KEY, ids=str)
async def test_a_key_anywhere_but_in_its_header_opens_nothing(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    path = route.at(aim.name)
    for name in ("key=", "api_key=", "access_token=", "authorization=Bearer%20"):
        reply = await service.ask(route.method, f"{path}?{name}{aim.key}")
        assert reply.status == 401
        assert await refused(aim, reply, position=position)
    reply = await service.ask(route.method, path, headers=[("Cookie", f"api_key={aim.key}")])
    assert reply.status == 401


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_host_that_is_no_text_is_refused(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    reply = await aim.hit(b"", ("Host", b"\xff\xfe"))
    assert await refused(aim, reply, position=position)


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_headers_that_nobody_reads_change_nothing(service: Service, route: Route) -> None:
    aim = await target(service, route, status=Status.COMPLETED)
    plain = await aim.hit(name="-")
    for name, value in (
        ("Accept", "text/html"),
        ("Accept", b"\xff"),
        ("Content-Type", "text/plain; charset=utf-7"),
        ("Content-Type", b"\xff"),
        ("Expect", "a miracle"),
        ("Expect", "100-continue"),
        ("Upgrade", "websocket"),
        ("User-Agent", "x" * 10_000),
        ("X-Forwarded-For", "'; DROP TABLE events; --"),
        ("X-Http-Method-Override", "DELETE"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "yesterday"),
        ("Cookie", "a=b; " * 1000),
    ):
        reply = await aim.hit(b"", (name, value), name="-")
        assert reply.status == plain.status, name
        assert reply.headers["content-type"] == plain.headers["content-type"], name


# Methods

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE")


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_another_method_is_refused_and_told_which_are_allowed(service: Service, route: Route) -> None:
    aim = await target(service, route)
    position = await service.position()
    path = route.at(aim.name)
    allowed = {other.method for other in ROUTES if _same_path(other, path)}
    for method in set(METHODS) - allowed:
        reply = await service.ask(method, path, key=aim.key)
        assert reply.status == 405, method
        assert set(reply.headers["allow"].split(", ")) == allowed
        assert await service.position() == position
        if method != "HEAD":
            assert code_of(route.contract, reply)


def _same_path(route: Route, path: str) -> bool:
    theirs, mine = route.path.split("/"), path.split("/")
    return len(theirs) == len(mine) and all(a in (b, "{id}", "{account}") for a, b in zip(theirs, mine, strict=True))


@pytest.mark.parametrize("contract", [*VENDORS, "ledger"])
async def test_a_path_that_leads_nowhere_is_refused_in_the_words_of_its_prefix(service: Service, contract: str) -> None:
    key = service.operator if contract == "ledger" else await service.key(contract)
    for path in (
        "",
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/tasks/a/b/c",
        "//v1/tasks",
        "/v1/tasks/",
        "/%2e%2e/healthz",
        "/\\",
    ):
        for method in ("GET", "POST", "DELETE", "PUT"):
            reply = await service.ask(method, f"/{contract}{path}", key=key)
            assert reply.status == 404, path
            assert code_of(contract, reply)


@pytest.mark.parametrize(
    ("method", "target"),
    [("OPTIONS", "*"), ("CONNECT", "example.com:443"), ("GET", "http://example.com"), ("GET", "//ledger/v1/tasks")],
)
async def test_a_target_that_is_no_path_of_ours_is_refused_in_the_native_words(
    service: Service, method: str, target: str
) -> None:
    for key in (None, service.operator):
        reply = await service.ask(method, target, key=key)
        assert (reply.status, code_of("ledger", reply)) == (404, "not_found")


# What is no HTTP: refused before there is a path, and so before there is a contract


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n\r\n\x00\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /lemondata/v1/tasks/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ledger/v1/tasks/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ledger/v1/tasks?account=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /lemondata/v1/tasks/a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /lemondata/v1/tasks/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET lemondata HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x01b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\x7fb\x08\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=lambda sent: sent[:60],
)
async def test_what_is_no_http_is_answered_with_400_and_hung_up_on(service: Service, sent: bytes) -> None:
    position = await service.position()
    async with Wire("127.0.0.1", service.port) as wire:
        reply = await wire.send(sent)
    assert reply.status in {400, 404, 413, 431}, reply
    assert await service.position() == position
    assert "Traceback" not in service.output()


# What cannot be carried is found in the bytes


def nested(levels: int, *, text: bytes = b"", inner: bytes = b"") -> bytes:
    """So many lists and objects by turns, each with *text* in it."""
    item = b"%b," % text if text else b""
    body = inner
    for level in range(levels):
        around = b"[" + item + (body or b"0") + b"]" if level % 2 else b'{"a":' + (body or text or b"0") + b"}"
        body = around
    return body


TEXTS = [
    b"",
    b'"]"',
    b'"["',
    b'"{}[]}"',
    b'"]}]}"',
    rb'"\"]"',
    rb'"]\\"',
    rb'"\\\"]"',
    rb'"\n\"["',
    rb'"\u005d["',
    b'""',
    b'"","]"',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("levels", "is_refused"), [(1, False), (DEPTH_MAX, False), (DEPTH_MAX + 1, True), (2 * DEPTH_MAX, True)]
)
def test_how_deep_a_body_is_nested_is_told_whatever_brackets_its_texts_hold(
    text: bytes,
    levels: int,
    is_refused: bool,  # noqa: FBT001
) -> None:
    inner = b"[%b]" % b",".join([b"[]"] * DEPTH_MAX)
    body = b'{"a":%b}' % (nested(levels - 3, text=text, inner=inner) if levels > 1 else b"0")
    with pytest.raises(Invalid, match="deeper than 32") if is_refused else nullcontext():
        assert read_json(body, dict[str, Any]) == json.loads(body)


def test_a_text_of_brackets_is_no_depth() -> None:
    for text in ("[" * 100, "]" * 100, "[]" * 100, '"[' * 100, '\\"[' * 100):
        body = json.dumps({"a": text, text: [text] * 40}).encode()
        assert read_json(body, dict[str, Any]) == json.loads(body)


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        (b"9223372036854775807", False),
        (b"-9223372036854775807", False),
        (b"9223372036854775808", True),
        (b"-9223372036854775808", True),
        (b"10000000000000000000", True),
        (b"[0,99999999999999999999]", True),
        (b"1" * 4000, True),
        (b"9223372036854775808.5", False),
        (b"0.9223372036854775808", False),
        (b"1e-0000000000000000000001", False),
        (b"1E+0000000000000000000001", False),
        (b"1e0000000000000000000001", False),
        (b"99999999999999999999e1", False),
        (b'"99999999999999999999"', False),
        (b'"\\"99999999999999999999"', False),
        (b'{"99999999999999999999":0}', False),
    ],
)
def test_an_integer_beyond_64_bits_is_refused_and_what_only_looks_like_one_is_not(
    value: bytes,
    is_refused: bool,  # noqa: FBT001
) -> None:
    body = b'{"a":' + value + b"}"
    with pytest.raises(Invalid) if is_refused else nullcontext():
        assert read_json(body, dict[str, Any]) == json.loads(body)


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [(rb"\u0000", True), (rb"\\\u0000", True), (rb"\\u0000", False), (rb"\u00000", True), (rb"u0000", False)],
)
def test_a_nul_character_is_refused_and_its_name_is_not(text: bytes, is_refused: bool) -> None:  # noqa: FBT001
    for body in (b'{"a":"' + text + b'"}', b'{"' + text + b'":0}'):
        with pytest.raises(Invalid, match="NUL") if is_refused else nullcontext():
            assert read_json(body, dict[str, Any]) == json.loads(body)


@pytest.mark.parametrize(
    "items",
    [b"[]", b"{}", b"[[]]", b'"["', b"0", b"0.1234567890123456789", b'"\\n"'],
)
@pytest.mark.parametrize("last", [b"1234567890123456789", b"12345678901234567890", b'"\\u0000"', b"[" * 40 + b"]" * 40])
def test_no_step_in_python_is_taken_for_each_value_of_a_body(items: bytes, last: bytes) -> None:
    body = b'{"a":[' + b",".join([*[items] * 5000, last]) + b"]}"
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    gc.collect()
    gc.disable()  # what other tests have left behind would be finalised, and counted
    sys.setprofile(count)
    try:
        with suppress(Invalid):
            read_json(body, dict[str, Any])
    finally:
        sys.setprofile(None)
        gc.enable()
    assert calls < 100


class _Known(msgspec.Struct):
    """A body of a vendor that passes over what it does not know."""

    known: int = 0


@pytest.mark.parametrize("also", [b"", b'"y":"\\\\",'], ids=["plain", "with an escape"])
def test_what_is_passed_over_is_read_or_refused_at_any_depth(also: bytes) -> None:
    for depth in (*range(900, 1001, 5), 100_000):
        body = b"{" + also + b'"x":' + b"[" * depth + b"]" * depth + b"}"
        with suppress(Invalid):
            assert read_json(body, _Known) == _Known()


@pytest.mark.parametrize(
    "value", [b"1e400", b"9" * 20, b"9" * 5000, b'"\xff"', b'"\\ud800"', b"-0.0", b'{"a":1,"a":2}']
)
def test_what_is_passed_over_is_read_or_refused_whatever_it_is(value: bytes) -> None:
    with suppress(Invalid):
        assert read_json(b'{"x":' + value + b"}", _Known) == _Known()
