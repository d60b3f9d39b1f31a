"""How breaks are shown, on the command line and over HTTP alike. Money is decimal text, times are RFC 3339."""

from collections.abc import Mapping
from typing import Any

from ledger.breaks import Break, Difference, Life
from ledger.events import BreakKind
from ledger.money import credits_text, mixed_text
from ledger.times import US_PER_SECOND, rfc3339
from projections.books.break_rows import Count
from projections.reconciliation.comparison import Billed
from projections.reconciliation.reconcile import Told


def difference_view(found: Difference, *, now_us: int) -> dict[str, Any]:
    """What differs; its age is in whole seconds."""
    return {
        "id": found.break_id,
        "provider": found.provider or None,
        "kind": found.kind,
        "about": found.about,
        "at_stake_credits": credits_text(found.at_stake_micros),
        "since": rfc3339(found.since_us),
        "age_seconds": max(now_us - found.since_us, 0) // US_PER_SECOND,
        "task": found.task,
        "lines": found.lines,
        "line_ids": found.line_ids,
        "detail": found.detail,
    }


def break_view(known: Break, *, now_us: int) -> dict[str, Any]:
    """A break and its life."""
    return {
        **difference_view(known.found, now_us=now_us),
        "life": known.life,
        "owner": known.owner,
        "reason": known.reason,
        "corrected_by": known.corrected_by,
        "opened_at": rfc3339(known.opened_at_us),
        "statement": known.statement,
    }


def told_view(told: Told, *, now_us: int) -> dict[str, Any]:
    """What a reconciliation has found."""
    if told.known is not None:
        return {**break_view(told.known, now_us=now_us), "new": False}
    return {**difference_view(told.found, now_us=now_us), "life": Life.OPEN, "new": True}


def statement_view(billed: Billed) -> dict[str, Any]:
    """The statement that was compared, and whose it is."""
    statement = billed.statement
    return {
        "provider": billed.provider,
        "statement": statement.digest,
        "lines": len(statement.lines),
        "billed_credits": credits_text(statement.billed_micros),
        "remainder_micros": mixed_text(statement.remainder),
        "malformed_lines": statement.malformed_count,
        "malformed": [one._asdict() for one in statement.malformed],
    }


def counts_view(counts: Mapping[BreakKind, Count]) -> dict[str, Any]:
    """Counts by kind."""
    return {
        kind: {"breaks": count.breaks, "at_stake_credits": credits_text(count.at_stake_micros)}
        for kind, count in sorted(counts.items())
    }
