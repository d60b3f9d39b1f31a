"""Why a field of a task shows what it shows: the events that gave it its value, and for money the sum and the rules.

Nothing is stored for it. The history is folded step by step, and a field was given its value by the events after
which it showed something else than before them. Alternative beaten: a table of which event writes which field, a
second set of rules that would be believed for as long as nobody compared it with the first.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec

from ledger.money import credits_text
from ledger.task import Task
from ledger.times import rfc3339
from projections.explain.fields import FIELDS, MONEY, value_in
from projections.explain.rules import Inexact, Rate, Rule, rate_of, rounding_of, rule_of
from projections.explain.steps import Step

View: TypeAlias = Mapping[str, Any]
Show: TypeAlias = Callable[[Task, int], View]
"""The task as its readers see it, when its last event stands at that position."""

PINNED = frozenset({"billing.estimated_credits"})
"""What the creation gives even where it gives nothing: a price of 0 is a price."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """An event that changed the field, and what the field shows after it."""

    position: int
    version: int
    type: str
    effective_at: str
    recorded_at: str
    actor: str
    amount_credits: str | None
    value: Any


class Addend(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a sum: what an event added to the figure (< 0: took from it), by which rule, and what it came to."""

    position: int
    credits: str
    total_credits: str
    rule: str
    rounded: Inexact | None
    """None: the amount is exact."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """How a figure of money comes about: lines that add up to it, the rules that they name, and the rate."""

    sum: tuple[Addend, ...]
    rules: tuple[Rule, ...]
    """In the order in which they came to bear, each once."""
    rate: Rate


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why *field* shows *value*. No event: it was never set."""

    field: str
    meaning: str
    value: Any
    events: tuple[Given, ...]
    figure: Figure | None
    """None: it is no figure of money."""


def explanations(steps: Sequence[Step], fields: Sequence[str], show: Show) -> list[Explanation]:
    """*fields* of the task whose life *steps* are; it has at least been created."""
    views = [show(step.after, step.row.position) for step in steps]
    return [
        Explanation(
            field=name,
            meaning=FIELDS[name],
            value=value_in(views[-1], name),
            events=_given(steps, views, name),
            figure=_figure(steps, MONEY[name]) if name in MONEY else None,
        )
        for name in fields
    ]


def is_set(value: object) -> bool:
    """Whether a field shows anything: no event need have given what is nothing."""
    return bool(value) and value != "0"


def _given(steps: Sequence[Step], views: Sequence[View], name: str) -> tuple[Given, ...]:
    values = [value_in(view, name) for view in views]
    first = is_set(values[0]) or name in PINNED
    changed = [first, *(after != before for before, after in pairwise(values))]
    return tuple(_event(step, value) for step, value, is_new in zip(steps, values, changed, strict=True) if is_new)


def _event(step: Step, value: object) -> Given:
    entry = step.row.entry
    return Given(
        position=step.row.position,
        version=step.row.version,
        type=entry.type,
        effective_at=rfc3339(entry.effective_at_us),
        recorded_at=rfc3339(entry.recorded_at_us),
        actor=entry.actor,
        amount_credits=None if entry.amount_micros is None else credits_text(entry.amount_micros),
        value=value,
    )


def _figure(steps: Sequence[Step], micros: Callable[[Task], int]) -> Figure:
    moved = [number for number, step in enumerate(steps) if micros(step.after) != micros(step.before)]
    rules = {number: rule_of(steps, number) for number in moved}
    return Figure(
        sum=tuple(
            Addend(
                position=steps[number].row.position,
                credits=credits_text(micros(steps[number].after) - micros(steps[number].before)),
                total_credits=credits_text(micros(steps[number].after)),
                rule=rules[number].name,
                rounded=rounding_of(steps, number),
            )
            for number in moved
        ),
        rules=tuple({rule.name: rule for rule in rules.values()}.values()),
        rate=rate_of(steps),
    )
