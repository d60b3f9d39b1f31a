"""What differs between the books and a statement: of a task and its lines, or where one lacks what the other has. Pure.

The lines of one task are added up before they are compared. Its difference is one break: of what could be said of the
same money, the first of *currency*, *unsettled*, *status-conflict*, *avoidable-cost*, *amount*. *late* and *duplicate*
are told beside it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ledger.breaks import Difference
from ledger.events import BreakKind
from ledger.ids import Spelling
from ledger.money import credits_text
from ledger.task import TERMINAL, Status
from ledger.times import US_PER_DAY
from projections.books.booked import Booked
from projections.reconciliation.line_names import amount_key
from projections.reconciliation.matching import Repeat, without_repeats
from projections.reconciliation.statement_format import StatementFormat, Terms, whole_period
from projections.reconciliation.statements import Line

LINES_MAX = 100
"""Numbers of lines told with a break."""


class Side(NamedTuple):
    """What a statement is compared under."""

    provider: str
    currency: str
    form: StatementFormat
    terms: Terms
    since_us: int
    until_us: int

    def is_foreign(self, line: Line) -> bool:
        """Whether the line is in another currency than agreed, so that its amount says nothing here."""
        return bool(line.currency) and line.currency != self.currency


# Of a task


def compare(task: Booked, lines: Sequence[Line], side: Side, *, before_micros: int = 0) -> Sequence[Difference]:
    """What differs between a task and the lines that are its own, after what other statements billed for it *before*.

    A task may be billed in two months: neither of them alone is what it was charged.
    """
    billed_micros = before_micros
    for line in lines:
        billed_micros += line.amount_micros
    if _is_plain(task, lines, billed_micros, side):
        return ()
    return list(_looked_at(task, lines, side, before_micros))


def _looked_at(task: Booked, lines: Sequence[Line], side: Side, before_micros: int) -> Iterator[Difference]:
    billed_micros = before_micros + sum(line.amount_micros for line in lines)
    if len(lines) > 1 and not agree(billed_micros, task.net_micros, side.terms):
        lines, repeats = without_repeats(lines)
        billed_micros = before_micros + sum(line.amount_micros for line in lines)
        for repeat in repeats:
            yield duplicate(repeat, side, task=task)
    if _is_late(task, lines, side):
        detail = f"ended long before it is billed, at {credits_text(billed_micros)}"
        yield about_task(task, BreakKind.LATE, abs(billed_micros), detail, lines)
    foreign = [line for line in lines if side.is_foreign(line)]
    if foreign:
        detail = f"billed in {foreign[0].currency!r}, agreed is {side.currency!r}"
        yield about_task(task, BreakKind.CURRENCY, abs(task.net_micros), detail, foreign)
    else:
        difference = _of_the_money(task, lines, _Bill(billed_micros, before_micros), side)
        if difference is not None:
            yield difference


def _is_plain(task: Booked, lines: Sequence[Line], billed_micros: int, side: Side) -> bool:
    """Whether nothing can differ: as nearly always, and so told at a third of what a closer look takes."""
    ended_us, status, form, currency = task.finished_at_us, task.status, side.form, side.currency
    if billed_micros != task.net_micros or ended_us is None or status not in TERMINAL:
        return False
    in_time_us = ended_us + form.late_after_days * US_PER_DAY
    for line in lines:
        billed_at_us, said, named = line.billed_at_us, line.status, line.currency
        if billed_at_us is None or billed_at_us > in_time_us or (named and named != currency):
            return False
        if said:
            outcome = form.outcome(said)
            if outcome is None or (outcome is Status.COMPLETED) is not (status == Status.COMPLETED):
                return False
    return True


def _is_late(task: Booked, lines: Sequence[Line], side: Side) -> bool:
    """Whether it is billed later than some days after the end of the period in which it ended."""
    if task.finished_at_us is None:
        return False
    grace_us = side.form.late_after_days * US_PER_DAY
    billed = [line.billed_at_us for line in lines if line.billed_at_us is not None]
    if not billed:  # then all that is known is which period the statement is of
        return task.finished_at_us + grace_us < side.since_us
    return max(billed) > whole_period(task.finished_at_us, side.form.period)[1] + grace_us


def agree(billed_micros: int, booked_micros: int, terms: Terms) -> bool:
    """Whether both are the same amount, within the tolerance."""
    apart = abs(billed_micros - booked_micros)
    if apart <= terms.tolerance_micros:
        return True
    share = terms.tolerance
    return apart * share.denominator <= abs(booked_micros) * share.numerator


class _Bill(NamedTuple):
    """What a task was billed in all, and how much of it by other statements."""

    micros: int
    before_micros: int

    @property
    def words(self) -> str:
        before = f" ({credits_text(self.before_micros)} of it before)" if self.before_micros else ""
        return f"billed {credits_text(self.micros)}{before}"


def _of_the_money(task: Booked, lines: Sequence[Line], bill: _Bill, side: Side) -> Difference | None:
    net_micros, billed_micros = task.net_micros, bill.micros
    apart_micros = abs(billed_micros - net_micros)
    amounts = f"{bill.words}, charged {credits_text(net_micros)}"
    if task.status not in TERMINAL:
        detail = f"the provider bills a task that is {task.status} here: {amounts}"
        return about_task(task, BreakKind.UNSETTLED, abs(billed_micros), detail, lines)
    conflict = _conflict(task, lines, side)
    if conflict is not None:
        detail = f"{conflict}: {amounts}"
        return about_task(task, BreakKind.STATUS_CONFLICT, max(abs(billed_micros), net_micros), detail, lines)
    avoidable_micros = _avoidable(task, lines, billed_micros, side)
    if avoidable_micros > 0:
        detail = f"spent after a cancel was asked for: {amounts}"
        return about_task(task, BreakKind.AVOIDABLE_COST, avoidable_micros, detail, lines)
    if not agree(billed_micros, net_micros, side.terms):
        return about_task(task, BreakKind.AMOUNT, apart_micros, amounts, lines)
    return None


def _conflict(task: Booked, lines: Sequence[Line], side: Side) -> str | None:
    """How the provider's outcome is not ours, in words. Which kind of not completing it was moves no money."""
    for line in lines:
        if not line.status:
            continue
        outcome = side.form.outcome(line.status)
        if outcome is None:
            return f"nobody has said what {line.status!r} means"
        if (outcome is Status.COMPLETED) is not (task.status == Status.COMPLETED):
            return f"{line.status!r} there, {task.status} here"
    return None


def _avoidable(task: Booked, lines: Sequence[Line], billed_micros: int, side: Side) -> int:
    """Micro-credits that the provider spent after a cancel was asked for.

    It is what goes beyond the part that was charged by the rules of the cancel, or for what was delivered all the
    same. Where the provider says that it had ended before, nothing was avoidable.
    """
    asked_at_us = task.cancel_requested_at_us
    if asked_at_us is None or billed_micros <= 0:
        return 0
    ends = [line.finished_at_us for line in lines if line.finished_at_us is not None]
    if ends and max(ends) <= asked_at_us:
        return 0
    return 0 if agree(billed_micros, task.net_micros, side.terms) else max(billed_micros - task.net_micros, 0)


# Differences


def missing_here(rest: Iterable[tuple[Line, Booked | None]], side: Side) -> Iterator[Difference]:
    """Lines that no task here answers for. Of those that say the same, each is a break of its own."""
    times: Counter[str] = Counter()
    for line, candidate in rest:
        key = amount_key(line)
        times[key] += 1
        yield _missing_here(line, candidate, side, about=key if times[key] == 1 else f"{key} again {times[key]}")


def _missing_here(line: Line, candidate: Booked | None, side: Side, *, about: str) -> Difference:
    named = line.provider_task_id or line.our_task_id or "no id"
    words = f"billed {credits_text(line.amount_micros)} for {named} of model {line.model or 'unknown'}"
    return Difference(
        provider=side.provider,
        kind=BreakKind.MISSING_HERE,
        about=about,
        at_stake_micros=abs(line.amount_micros),
        since_us=line.at_us or side.since_us,
        detail=words,
        task=None if candidate is None else Spelling.UUID.spell(candidate.task),
        lines=(line.number,),
        line_ids=(line.line_id,) if line.line_id else (),
    )


def missing_there(task: Booked) -> Difference:
    """A task that was charged here, and that the statement has no line for."""
    detail = f"charged {credits_text(task.net_micros)}, no line of the statement"
    return about_task(task, BreakKind.MISSING_THERE, abs(task.net_micros), detail)


def duplicate(repeat: Repeat, side: Side, *, task: Booked | None = None) -> Difference:
    """A line that bills once more what an earlier one has billed."""
    earlier, line, nth = repeat
    has_own_id = bool(line.line_id) and line.line_id != earlier.line_id
    return Difference(
        provider=side.provider,
        kind=BreakKind.DUPLICATE,
        about=f"{amount_key(earlier)} again {f'as {line.line_id}' if has_own_id else nth}",
        at_stake_micros=abs(line.amount_micros),
        since_us=line.at_us or side.since_us,
        detail=f"line {line.number} bills again what line {earlier.number} has billed",
        task=None if task is None else Spelling.UUID.spell(task.task),
        lines=(earlier.number, line.number),
        line_ids=tuple(text for text in (earlier.line_id, line.line_id) if text),
    )


def about_task(
    task: Booked, kind: BreakKind, at_stake_micros: int, detail: str, lines: Sequence[Line] = ()
) -> Difference:
    """A difference about a task, which is the same one in whatever statement it shows."""
    spelled = Spelling.UUID.spell(task.task)
    return Difference(
        provider=task.purpose.provider,
        kind=kind,
        about=f"task {spelled}",
        at_stake_micros=at_stake_micros,
        since_us=task.finished_at_us or task.held_at_us or task.created_at_us,
        detail=detail,
        task=spelled,
        lines=tuple(line.number for line in lines[:LINES_MAX]),
        line_ids=tuple(line.line_id for line in lines[:LINES_MAX] if line.line_id),
    )
