"""Reconciliation over HTTP: a provider's statement is handed in, and breaks are listed, explained and resolved.

What is shown is what ``task-ledger reconcile`` and ``breaks`` print as JSON. Accounts are compared with their own rows;
with the rows of their tasks on the command line only, in one snapshot, which an engine that serves does not give.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from api.bodies import read_json
from api.contracts import parse_any
from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_queries import limit_in, only
from api.refusals import Invalid
from ledger.break_log import BreakLog
from ledger.breaks import CorrectBreak, ExplainBreak, Life, break_stream
from ledger.cursors import cursor, place
from ledger.errors import UnknownBreak
from ledger.events import BreakKind
from projections.books.books import Books
from projections.books.break_rows import Wanted, count_breaks, list_breaks
from projections.deadlines.deadlines import Deadlines
from projections.follow import catch_up
from projections.reconciliation.balances import account_balances
from projections.reconciliation.break_shapes import break_view, counts_view, statement_view, told_view
from projections.reconciliation.comparison import Billed, side_of
from projections.reconciliation.cost_log import CostLog
from projections.reconciliation.reconcile import Clerk, Told
from projections.reconciliation.self_check import STUCK_HOURS, late_truths, settlement
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statement_records import NotAStatementError, Syntax
from projections.reconciliation.statements import read_statement
from projections.reports.parameters import WrongWordError, period_of

STATEMENT_MAX_BYTES = 32 * 2**20
SHOWN_MAX = 200
"""Breaks shown in an answer; all of them are counted, and listed by their own route."""
SYNTAXES = {
    "text/csv": Syntax.CSV,
    "application/x-ndjson": Syntax.JSON_LINES,
    "application/jsonl": Syntax.JSON_LINES,
}

DIGEST = re.compile("[0-9a-f]{64}")

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Position = Annotated[int, msgspec.Meta(ge=1)]


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is asked beyond the route itself."""


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    reason: Reason


class ExplainBody(_Said, frozen=True, kw_only=True, tag="explain"):
    owner: Name | None = None


class ResolveBody(_Said, frozen=True, kw_only=True, tag="resolve"):
    position: Position | None = None


BreakBody: TypeAlias = ExplainBody | ResolveBody


async def breaks(deps: Deps, asked: Asked) -> Answer:
    """The breaks, in the order of their ids; the open ones unless another life, or ``all``, is asked for."""
    wanted = _wanted(asked)
    found = await deps.books.consult(lambda books: list_breaks(books, wanted._replace(limit=wanted.limit + 1)))
    page, more = found[: wanted.limit], len(found) > wanted.limit
    body = {
        "breaks": [break_view(known, now_us=asked.now_us) for known in page],
        "next_cursor": cursor(asked.log_id, bytes.fromhex(page[-1].break_id)) if more else None,
        "has_more": more,
    }
    return json_answer(200, body)


async def change_break(deps: Deps, asked: Asked) -> Answer:
    """Explain or resolve one; its answer is the break as it stands then."""
    break_id = asked.params["id"]
    if break_stream(break_id) is None:
        raise UnknownBreak(break_id)
    body: BreakBody = read_json(asked.body, BreakBody)  # type: ignore[arg-type]
    log, by = BreakLog(deps.ledger.engine), asked.key_id
    match body:
        case ExplainBody(reason=reason, owner=owner):
            explain = ExplainBreak(at_us=asked.now_us, break_id=break_id, reason=reason, owner=owner)
            known = await log.explain(explain, by=by)
        case ResolveBody(reason=reason, position=position):
            if position is not None and position > (await deps.ledger.engine.head()).position:
                raise Invalid("position lies beyond the end of the log", param="position")
            correct = CorrectBreak(at_us=asked.now_us, break_id=break_id, reason=reason, position=position)
            known = await log.correct(correct, by=by)
    return json_answer(200, break_view(known, now_us=asked.now_us))


async def statement(deps: Deps, asked: Asked) -> Answer:
    """Compare the statement in the body with the books, and open the breaks that it shows."""
    only(asked, {"provider", "new_provider", "replaces", "since", "until"})
    provider = _provider(asked.query.get("provider", ""))
    since_us, until_us = _period(asked.query)
    replaces = asked.query.get("replaces")
    if replaces is not None and not DIGEST.fullmatch(replaces):
        raise Invalid("replaces is the SHA-256 of a statement, in 64 hex digits", param="replaces")
    providers = None if _is_new(asked.query) else {*deps.statements, *deps.catalogue.providers}
    syntax = SYNTAXES.get(asked.headers.get("Content-Type", "").partition(";")[0].strip().lower())
    if syntax is None:
        raise Invalid(f"Content-Type is one of {', '.join(SYNTAXES)}", param="Content-Type")
    form = deps.statements.get(provider, StatementFormat())
    try:
        read = await asyncio.to_thread(read_statement, asked.body, form, task_in=parse_any, syntax=syntax)
        billed = Billed(provider, read, form, since_us, until_us, replaces, providers)
        side_of(billed)  # a statement without a period is refused before the books are asked
        return json_answer(
            200, await deps.books.consult(lambda books: _compared(deps, asked, books, billed, writes=True))
        )
    except NotAStatementError as wrong:
        raise Invalid(f"the body is no statement: {wrong}") from None


async def reconciliation(deps: Deps, asked: Asked) -> Answer:
    """The ledger against itself, now, and what is open; nothing is written."""
    only(asked, set())
    told = await deps.books.consult(lambda books: _compared(deps, asked, books, None, writes=False))
    return json_answer(200, told)


async def reconcile(deps: Deps, asked: Asked) -> Answer:
    """The same, and the breaks that are new are opened; the body, if there is one, is an empty object."""
    only(asked, set())
    if asked.body.strip():
        read_json(asked.body, NoBody)
    told = await deps.books.consult(lambda books: _compared(deps, asked, books, None, writes=True))
    return json_answer(200, told)


async def _compared(deps: Deps, asked: Asked, books: Books, billed: Billed | None, *, writes: bool) -> dict[str, Any]:
    shown: list[Told] = []

    def tell(told: Told) -> None:
        if len(shown) < SHOWN_MAX:
            shown.append(told)

    at = await books.checkpoint()
    log = BreakLog(deps.ledger.engine)
    clerk = Clerk(log, by=asked.key_id, now_us=asked.now_us, writes=writes, tell=tell)
    if billed is None:
        await _take_late(deps, clerk)  # first: the deadlines may be refused, and nothing is written then
        async for found in settlement(books, now_us=asked.now_us, stuck_hours=STUCK_HOURS):
            await clerk.take(found)
        accounts = await account_balances(deps.ledger.engine, books, now_us=asked.now_us)
        await clerk.take(accounts.found)
        told: dict[str, Any] = {"accounts_not_compared": accounts.moving}
        if writes:
            await catch_up(deps.ledger.engine, books)  # what has been opened is counted with what was open
    else:
        await clerk.read(billed, CostLog(deps.ledger.engine, books))
        told = statement_view(billed) | {"closed": counts_view(clerk.tally.closed)}
    return told | {
        "position": at.position,
        "head": at.hash.hex(),
        "found": counts_view(clerk.tally.found),
        "new": counts_view(clerk.tally.new),
        "open": counts_view(clerk.tally.open if billed else await count_breaks(books, life=Life.OPEN)),
        "breaks": [told_view(one, now_us=asked.now_us) for one in shown],
    }


async def _take_late(deps: Deps, clerk: Clerk) -> None:
    """Take what was reported after outcomes that it contradicts; nothing, where nobody follows that."""

    async def taken(deadlines: Deadlines) -> None:
        async for found in late_truths(deps.ledger.engine, deadlines):
            await clerk.take(found)

    if deps.sweeper is not None:
        await deps.sweeper.consult(taken)


# Queries


def _provider(name: str) -> str:
    if not 1 <= len(name) <= 128 or not name.isprintable():  # noqa: PLR2004 - as `Name`
        raise Invalid("provider is a name of 1 to 128 characters", param="provider")
    return name


def _is_new(query: Mapping[str, str]) -> bool:
    word = query.get("new_provider", "false")
    if word not in {"true", "false"}:
        raise Invalid("new_provider is true or false", param="new_provider")
    return word == "true"


def _wanted(asked: Asked) -> Wanted:
    query = asked.query
    only(asked, {"life", "kind", "provider", "cursor", "limit"})
    life, kind = query.get("life", Life.OPEN), query.get("kind")
    if life not in {*Life, "all"}:
        raise Invalid(f"life is one of {', '.join(Life)}, all", param="life")
    if kind is not None and kind not in set(BreakKind):
        raise Invalid(f"kind is one of {', '.join(BreakKind)}", param="kind")
    limit, after = limit_in(asked), ""
    if "cursor" in query:
        beyond = place(asked.log_id, query["cursor"])
        if beyond is None or break_stream(beyond.hex()) is None:
            raise Invalid("cursor is not one that a list of this log gave", param="cursor")
        after = beyond.hex()
    return Wanted(
        life=None if life == "all" else Life(life),
        kind=None if kind is None else BreakKind(kind),
        provider=_provider(query["provider"]) if "provider" in query else None,
        after=after,
        limit=limit,
    )


def _period(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    try:
        return period_of(query)
    except WrongWordError as wrong:
        raise Invalid(str(wrong), param=wrong.name) from None
