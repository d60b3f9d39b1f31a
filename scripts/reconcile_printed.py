"""What `task-ledger reconcile` prints."""

from collections.abc import Mapping
from typing import Any

from ledger.events import BreakKind
from ledger.money import credits_text, mixed_text
from projections.books.break_rows import Count
from projections.reconciliation.break_shapes import counts_view, statement_view
from projections.reconciliation.comparison import Billed
from projections.reconciliation.reconcile import Told
from scripts.printed import json_line, table
from scripts.reconcile_run import Outcome, Wanted


def tell(outcome: Outcome, wanted: Wanted, *, as_json: bool) -> None:
    """Print what a run came to; with *as_json* what was found has been printed as it was found."""
    if as_json:
        json_line(_summary(outcome, wanted))
        return
    if wanted.billed is not None:
        _tell_statement(wanted.billed)
    if outcome.tally.found:
        _tell_found(outcome)
    closed = _breaks(outcome.tally.closed)
    if closed:
        print(f"{closed} breaks are corrected: task and bills agree now")
    own = _breaks(outcome.own.found)
    if wanted.billed is not None and own:
        print(f"{own} more of the ledger against itself: task-ledger reconcile, without a statement, lists them")
    if outcome.moving:
        print(f"{outcome.moving} accounts were moved all the while, and not compared with their rows")
    still = _breaks(outcome.open)
    where = f"at position {outcome.place.position}"
    print(f"{'clean' if not still else f'{still} breaks are open'}, compared {where}")


def _tell_statement(billed: Billed) -> None:
    statement = billed.statement
    for number, reason in statement.malformed:
        print(f"line {number} is malformed: {reason}")
    left_out = statement.malformed_count - len(statement.malformed)
    print(f"{len(statement.lines)} lines of {billed.provider}, {statement.malformed_count} malformed")
    print(f"statement {statement.digest}")
    if statement.remainder:
        left = mixed_text(statement.remainder)
        print(f"its lines are rounded to the nearest micro-credit: remainder {left} of one in all")
    if left_out:
        print(f"of the malformed, {left_out} are not shown")


def _tell_found(outcome: Outcome) -> None:
    """How much there is of each kind, and the first of it one by one."""
    kinds = [kind for kind in BreakKind if kind in outcome.tally.found]
    table(
        ("kind", "found", "new", "open", "at stake"),
        [_by_kind(outcome, kind) for kind in kinds] + [_total(outcome, kinds)],
        right_from=1,
    )
    print()
    table(("kind", "break", "life", "at stake", "task", "lines", "detail"), map(_row, _grouped(outcome.shown)))
    hidden = _breaks(outcome.tally.found) - len(outcome.shown)
    if hidden:
        print(f"and {hidden} more: task-ledger breaks list")


def _breaks(counts: Mapping[BreakKind, Count]) -> int:
    return sum(count.breaks for count in counts.values())


def _summary(outcome: Outcome, wanted: Wanted) -> dict[str, Any]:
    tally, own = outcome.tally, outcome.own
    summary = {
        "position": outcome.place.position,
        "head": outcome.place.hash.hex(),
        "found": counts_view(tally.found),
        "new": counts_view(tally.new),
        "open": counts_view(outcome.open),
        "accounts_not_compared": outcome.moving,
        "written": wanted.writes,
    }
    if wanted.billed is None:
        return summary
    beside = {
        "closed": counts_view(tally.closed),
        "own": {"found": counts_view(own.found), "new": counts_view(own.new)},
    }
    return summary | beside | statement_view(wanted.billed)


def _by_kind(outcome: Outcome, kind: BreakKind) -> tuple[str, ...]:
    tally, none = outcome.tally, Count(0, 0)
    found = tally.found[kind]
    numbers = (found.breaks, tally.new.get(kind, none).breaks, tally.open.get(kind, none).breaks)
    return kind, *map(str, numbers), credits_text(found.at_stake_micros)


def _total(outcome: Outcome, kinds: list[BreakKind]) -> tuple[str, ...]:
    columns = list(zip(*(_by_kind(outcome, kind)[1:4] for kind in kinds), strict=True))
    micros = sum(count.at_stake_micros for count in outcome.tally.found.values())
    return "total", *(str(sum(map(int, column))) for column in columns), credits_text(micros)


def _grouped(shown: list[Told]) -> list[Told]:
    order = list(BreakKind)
    return sorted(shown, key=lambda told: order.index(told.found.kind))


def _row(told: Told) -> tuple[str, ...]:
    found = told.found
    lines = ", ".join(map(str, found.lines[:5])) + (", ..." if len(found.lines) > 5 else "")  # noqa: PLR2004 - a glance
    return (
        found.kind,
        found.break_id,
        told.life,
        credits_text(found.at_stake_micros),
        found.task or "",
        lines,
        found.detail,
    )
