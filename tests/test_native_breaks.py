"""Reconciliation over HTTP: statements handed in, breaks listed page by page, explained and resolved."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from api import native_breaks
from ledger.engine import Engine
from ledger.events import BreakKind
from ledger.ids import Spelling
from ledger.keys import Role
from ledger.records import AccountRow
from ledger.times import US_PER_SECOND
from projections.audit.audit import audit
from tests.billing import COLUMNS, PROVIDER, begin, row, run, statement
from tests.builders import ident
from tests.serving import Service, serving
from tests.wire import Reply

UUID = Spelling.UUID.spell
STATEMENTS = f"/ledger/v1/billing/statements?provider={PROVIDER}"
CSV = (("Content-Type", "text/csv; charset=utf-8"),)


@pytest.fixture
async def service(engine: Engine) -> AsyncIterator[Service]:
    async with serving(engine) as running:
        yield running


async def handed_in(service: Service, data: bytes, *, query: str = "", told: Any = CSV) -> Reply:  # noqa: ANN401
    return await service.ask("POST", STATEMENTS + query, key=service.operator, body=data, headers=told)


async def asked(service: Service, path: str) -> Any:  # noqa: ANN401
    reply = await service.ask("GET", f"/ledger/v1/billing{path}", key=service.operator)
    assert reply.status == 200, reply
    return reply.json()


async def said(service: Service, break_id: str, **body: Any) -> Reply:  # noqa: ANN401
    return await service.ask("POST", f"/ledger/v1/billing/breaks/{break_id}", key=service.operator, json=body)


def strays(count: int) -> bytes:
    """A statement of so many lines that no task answers for."""
    return statement([row(n, provider_task_id=f"stray-{n}", our_task_id="", line_id=f"S{n}") for n in range(count)])


async def test_a_statement_that_agrees_opens_nothing(service: Service) -> None:
    await run(service.ledger, range(3))
    reply = await handed_in(service, statement([row(n) for n in range(3)]))
    told = reply.json()
    assert (reply.status, told["lines"], told["malformed_lines"], told["billed_credits"]) == (200, 3, 0, "4.5")
    assert (told["found"], told["new"], told["open"], told["breaks"]) == ({}, {}, {}, [])
    assert (told["provider"], told["remainder_micros"]) == (PROVIDER, "0")


async def test_a_statement_of_several_mebibytes_is_read_to_its_end(service: Service) -> None:
    await run(service.ledger, range(60))
    data = statement([row(n, note="x" * 60_000) for n in range(60)], columns=(*COLUMNS, "note"))
    assert len(data) > 3 * 2**20
    reply = await handed_in(service, data)
    assert reply.status == 200, reply
    told = reply.json()
    assert (told["lines"], told["malformed_lines"], told["found"]) == (60, 0, {})


async def test_s43_nine_lines_against_eight_tasks_are_one_break_with_amount_age_and_candidate(service: Service) -> None:
    await run(service.ledger, range(8))
    service.clock.now_us += 3600 * US_PER_SECOND
    lines = [row(n) for n in range(8)]
    stray = row(8, provider_task_id="prov-x", our_task_id="", amount="2.25")
    told = (await handed_in(service, statement([*lines, stray]))).json()
    (one,) = told["breaks"]
    assert (one["kind"], one["at_stake_credits"], one["task"]) == ("missing-here", "2.25", UUID(ident(7)))
    assert 0 < one["age_seconds"] < 3600
    assert told["new"] == {"missing-here": {"breaks": 1, "at_stake_credits": "2.25"}}
    again = (await handed_in(service, statement([*lines, stray]))).json()
    assert (again["new"], again["open"]) == ({}, told["open"])
    assert (await audit(service.ledger.engine)).findings == ()


async def test_json_lines_are_taken_by_their_content_type(service: Service) -> None:
    await run(service.ledger, range(1))
    line = b'{"provider_task_id":"prov-0","amount":1.5,"finished_at":"2026-01-02T03:05:00Z"}\n'
    for kind in ("application/x-ndjson", "application/jsonl"):
        told = (await handed_in(service, line, told=(("Content-Type", kind),))).json()
        assert (told["lines"], told["found"]) == (1, {})


async def test_malformed_lines_are_told_and_the_others_are_compared(service: Service) -> None:
    await run(service.ledger, range(2))
    told = (await handed_in(service, statement([row(0, amount="1e3"), row(1)]))).json()
    assert (told["lines"], told["malformed_lines"]) == (1, 1)
    assert told["malformed"][0]["number"] == 2
    assert [one["kind"] for one in told["breaks"]] == ["missing-there"]


REFUSED = {
    "empty": (b"", "", CSV, 422),
    "binary": (bytes(100), "", CSV, 422),
    "other columns": (b"name,age\nx,1\n", "", CSV, 422),
    "no period": (statement([]), "", CSV, 422),
    "no content type": (strays(1), "", (), 422),
    "another content type": (strays(1), "", (("Content-Type", "application/pdf"),), 422),
    "CSV said to be JSON lines": (strays(1), "", (("Content-Type", "application/x-ndjson"),), 422),
    "a period that ends before it begins": (strays(1), "&since=2026-02-01&until=2026-01-01", CSV, 422),
    "a time that is none": (strays(1), "&since=then", CSV, 422),
    "an unknown parameter": (strays(1), "&dry=1", CSV, 422),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_statement_is_refused_and_nothing_is_written(service: Service, case: str) -> None:
    data, query, told, status = REFUSED[case]
    position = await service.position()
    reply = await handed_in(service, data, query=query, told=told)
    assert (reply.status, reply.json()["code"]) == (status, "invalid_request")
    assert await service.position() == position
    assert not service.logged("books.failed"), "the books are not at fault"


async def test_a_provider_that_nobody_knows_is_refused_unless_it_is_said_to_be_new(service: Service) -> None:
    await run(service.ledger, range(1))
    position = await service.position()
    path = STATEMENTS.replace(PROVIDER, "volcengin")
    reply = await service.ask("POST", path, key=service.operator, body=strays(1), headers=CSV)
    assert (reply.status, reply.json()["code"]) == (422, "unknown_provider")
    assert "known are alibaba" in reply.json()["detail"]
    assert await service.position() == position
    path += "&new_provider=true"
    reply = await service.ask("POST", path, key=service.operator, body=strays(1), headers=CSV)
    assert (reply.status, reply.json()["new"]["missing-here"]["breaks"]) == (200, 1)


async def test_a_statement_replaces_another_and_that_one_is_read_no_more(service: Service) -> None:
    await run(service.ledger, range(1))
    old, new = statement([row(0), row(8, provider_task_id="stray", our_task_id="")]), statement([row(0)])
    digest = (await handed_in(service, old)).json()["statement"]
    told = (await handed_in(service, new, query=f"&replaces={digest}")).json()
    assert told["closed"] == {"missing-here": {"breaks": 1, "at_stake_credits": "1.5"}}
    position = await service.position()
    assert (await handed_in(service, new, query=f"&replaces={digest}")).status == 200
    for data, query, code in (
        (old, "", "statement_replaced"),
        (strays(1), f"&replaces={digest}", "not_replaceable"),
        (strays(1), f"&replaces={'0' * 64}", "not_replaceable"),
    ):
        reply = await handed_in(service, data, query=query)
        assert (reply.status, reply.json()["code"]) == (409, code)
    assert await service.position() == position


async def test_the_books_are_not_blamed_for_deadlines_that_cannot_be_opened(service: Service) -> None:
    await service.sweeper.close()
    service.sweeper.path.unlink(missing_ok=True)
    service.sweeper.path.mkdir()
    reply = await service.native("GET", "/billing/reconciliation")
    assert (reply.status, reply.json()["code"]) == (503, "store_unavailable")
    assert not service.logged("books.failed")


async def test_a_reconciliation_that_is_refused_has_written_nothing_as_its_answer_says(service: Service) -> None:
    await begin(service.ledger, 5)
    service.clock.now_us += 25 * 3600 * US_PER_SECOND
    await service.sweeper.close()
    service.sweeper.path.unlink(missing_ok=True)
    service.sweeper.path.mkdir()
    position = await service.position()
    reply = await service.native("POST", "/billing/reconciliation")
    assert (reply.status, "nothing was written" in reply.json()["title"]) == (503, True)
    assert await service.position() == position


async def test_a_statement_beyond_the_bound_is_too_large(service: Service) -> None:
    assert native_breaks.STATEMENT_MAX_BYTES == 32 * 2**20
    reply = await handed_in(service, b"x" * (native_breaks.STATEMENT_MAX_BYTES + 1))
    assert (reply.status, reply.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/billing/breaks"),
        ("GET", "/billing/reconciliation"),
        ("POST", "/billing/breaks/" + "0" * 32),
        ("POST", f"/billing/statements?provider={PROVIDER}"),
    ],
)
async def test_a_worker_may_not(service: Service, method: str, path: str) -> None:
    worker = await service.key("ledger", role=Role.WORKER)
    reply = await service.ask(method, f"/ledger/v1{path}", key=worker, body=b"{}" if method == "POST" else b"")
    assert (reply.status, reply.json()["code"]) == (403, "forbidden")


# Breaks


async def test_breaks_come_page_by_page_each_once(service: Service) -> None:
    await handed_in(service, strays(7))
    seen: list[str] = []
    path = "/breaks?limit=3"
    while True:
        page = await asked(service, path)
        seen += [one["id"] for one in page["breaks"]]
        if not page["has_more"]:
            break
        path = f"/breaks?limit=3&cursor={page['next_cursor']}"
    assert (len(seen), page["next_cursor"]) == (7, None)
    assert seen == sorted(set(seen))


async def test_breaks_are_chosen_by_life_kind_and_provider(service: Service) -> None:
    await run(service.ledger, range(1))
    await handed_in(service, statement([row(0, amount="2"), row(1, provider_task_id="stray", our_task_id="")]))
    kinds = {one["kind"]: one["id"] for one in (await asked(service, "/breaks"))["breaks"]}
    assert set(kinds) == {BreakKind.AMOUNT, BreakKind.MISSING_HERE}
    await said(service, kinds["amount"], type="resolve", reason="given back")

    async def found(query: str) -> set[str]:
        return {one["kind"] for one in (await asked(service, f"/breaks?{query}"))["breaks"]}

    assert await found("life=open") == {"missing-here"}
    assert await found("life=corrected") == {"amount"}
    assert await found("life=all") == {"amount", "missing-here"}
    assert await found("life=all&kind=amount") == {"amount"}
    assert await found(f"provider={PROVIDER}") == {"missing-here"}
    assert await found("provider=another") == set()


async def test_a_break_is_explained_and_then_resolved(service: Service) -> None:
    await handed_in(service, strays(1))
    (one,) = (await asked(service, "/breaks"))["breaks"]
    explained = (await said(service, one["id"], type="explain", reason="a trial", owner="ops")).json()
    assert explained == one | {"life": "explained", "reason": "a trial", "owner": "ops"}
    resolved = await said(service, one["id"], type="resolve", reason="booked", position=1)
    assert (resolved.status, resolved.json()["life"], resolved.json()["corrected_by"]) == (200, "corrected", 1)
    position = await service.position()
    assert (await said(service, one["id"], type="resolve", reason="booked", position=1)).body == resolved.body
    assert await service.position() == position
    closed = await said(service, one["id"], type="explain", reason="after all")
    assert (closed.status, closed.json()["code"]) == (409, "break_closed")
    assert (await asked(service, "/breaks?life=all"))["breaks"] == [resolved.json()]


async def test_a_position_beyond_the_log_corrects_nothing(service: Service) -> None:
    await handed_in(service, strays(1))
    (one,) = (await asked(service, "/breaks"))["breaks"]
    reply = await said(service, one["id"], type="resolve", reason="booked", position=10**9)
    assert (reply.status, reply.json()["param"]) == (422, "position")


async def test_a_break_that_is_not_there_is_not_found(service: Service) -> None:
    reply = await said(service, "0" * 32, type="explain", reason="a trial")
    assert (reply.status, reply.json()["code"]) == (404, "break_not_found")


# The ledger against itself


async def test_the_reconciliation_tells_what_is_unsettled_and_writes_nothing(service: Service) -> None:
    await run(service.ledger, range(2))
    await begin(service.ledger, 5)
    position = await service.position()
    clean = await asked(service, "/reconciliation")
    assert (clean["found"], clean["open"], clean["position"]) == ({}, {}, position)
    service.clock.now_us += 25 * 3600 * US_PER_SECOND
    told = await asked(service, "/reconciliation")
    (one,) = told["breaks"]
    assert (one["kind"], one["task"], one["at_stake_credits"], one["new"]) == ("unsettled", UUID(ident(5)), "10", True)
    assert await service.position() == position


async def test_an_account_whose_row_is_not_what_the_books_say_is_a_break_of_its_amount(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(service.ledger, range(2))
    engine = service.ledger.engine
    rows = {name: replace(row, charged_micros=row.charged_micros + 5) for name, row in (await accounts(engine)).items()}

    async def slipped(_: object) -> dict[str, AccountRow]:
        return rows

    assert (await asked(service, "/reconciliation"))["accounts_not_compared"] == 0
    monkeypatch.setattr(engine, "accounts", slipped)
    told = await asked(service, "/reconciliation")
    (one,) = told["breaks"]
    assert (one["kind"], one["about"], one["at_stake_credits"]) == ("amount", "account acme by its own row", "0.000005")
    assert one["detail"] == "account acme: 3 charged in the books, 3.000005 charged by its own row"
    assert told["accounts_not_compared"] == 0
    opened = (await service.native("POST", "/billing/reconciliation")).json()
    assert (opened["new"], opened["open"]) == (opened["found"], opened["found"]), "what it opens is among what is open"


async def accounts(engine: Engine) -> dict[str, AccountRow]:
    return await engine.accounts(None)


async def test_the_reconciliation_counts_what_is_open(service: Service) -> None:
    await handed_in(service, strays(3))
    told = await asked(service, "/reconciliation")
    assert told["open"] == {"missing-here": {"breaks": 3, "at_stake_credits": "4.5"}}


async def test_an_answer_shows_a_bounded_number_of_breaks_and_counts_all(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_breaks, "SHOWN_MAX", 2)
    told = (await handed_in(service, strays(5))).json()
    assert (len(told["breaks"]), told["found"]["missing-here"]["breaks"]) == (2, 5)
