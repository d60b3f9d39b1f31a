"""`task-ledger explain`: the events, the rule and the rate behind a field or a figure of a task."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from api.contracts import parse_any
from api.native_shapes import task_view
from ledger.errors import CannotOpenError
from ledger.ids import TaskId
from ledger.records import Recorded
from ledger.task import Task
from projections.explain import costs as explain_costs
from projections.explain.costs import Cost, explain_cost
from projections.explain.explain import Explanation, Figure, Given, explanations, is_set
from projections.explain.fields import FIELDS, NoSuchFieldError, named
from projections.explain.rules import Inexact, Rate, rounded_words
from projections.explain.steps import steps_of
from projections.places import Place, place_of
from scripts import stores
from scripts.options import at_option
from scripts.printed import JsonOption, json_line, plain


def explain(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task id in the spelling of any contract.")],
    field: Annotated[
        str | None,
        typer.Argument(
            metavar="FIELD",
            help="A field of the native task, such as status or billing.charged_credits, or provider_cost; else all.",
        ),
    ] = None,
    *,
    at: Annotated[
        str | None, typer.Option(metavar="POSITION", help="As of this position of the log, or of this time.")
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Tell why a field of a task shows what it shows."""
    task_id = parse_any(task)
    if task_id is None:
        raise typer.BadParameter(f"{task!r} is no task id in any spelling", param_hint="'TASK'")
    if field == explain_costs.NAME:
        _tell_cost(asyncio.run(_cost(store, task_id, task, at)), as_json=as_json)
        return
    try:
        fields = tuple(FIELDS) if field is None else named(field)
    except NoSuchFieldError as error:
        raise typer.BadParameter(str(error), param_hint="'FIELD'") from error
    found = asyncio.run(_history(store, task_id, at))
    steps = list(steps_of(task_id, found.rows))
    if not steps:
        known = "" if at is None else f" as of position {found.place.position}"
        raise typer.BadParameter(f"there is no task {task}{known}", param_hint="'TASK'")
    told = explanations(steps, fields, partial(_shown, found.log_id))
    if field is None:
        _all(told, found, _cost_beside(store, task_id, task, found.place), as_json=as_json)
    elif as_json:
        _as_json(told, found)
    else:
        _in_full(told)
        _as_of(found.place)


class _Found(NamedTuple):
    """A task's events up to a place of its log."""

    log_id: str
    place: Place
    rows: Sequence[Recorded]


async def _history(store: str, task: TaskId, at: str | None) -> _Found:
    async with stores.to_read(store) as engine, engine.snapshot():
        with at_option():
            place = await place_of(engine, at)
        rows = [row for row in await engine.streams([task]) if row.position <= place.position]
        return _Found(engine.log_id, place, rows)


class _Billed(NamedTuple):
    """What a task's provider has billed, as known at a place of its log."""

    place: Place
    cost: Cost


async def _cost(store: str, task: TaskId, spelled: str, at: str | None) -> _Billed:
    async with stores.with_books(store) as (engine, books):
        with at_option():
            place = await place_of(engine, at)
        if not await engine.tasks([task]):
            raise typer.BadParameter(f"there is no task {spelled}", param_hint="'TASK'")
        return _Billed(place, await explain_cost(engine, books, task, place))


def _cost_beside(store: str, task: TaskId, spelled: str, place: Place) -> Cost | None:
    """The cost beside all else; None, and it is said, where the books have no place."""
    try:
        return asyncio.run(_cost(store, task, spelled, str(place.position))).cost
    except CannotOpenError as error:
        print(f"{explain_costs.NAME} is not known: {error}", file=sys.stderr)
        return None


def _tell_cost(billed: _Billed, *, as_json: bool) -> None:
    place, cost = billed
    if as_json:
        json_line({"as_of": place.position, "head": place.hash.hex()} | msgspec.structs.asdict(cost))
    else:
        _cost_in_full(cost)
        _as_of(place)


def _cost_in_full(cost: Cost) -> None:
    _say(f"{cost.field} = {cost.value}: {cost.meaning}")
    if not cost.sum:
        _say("  never billed: no line of a statement that was read is its own")
    for line in cost.sum:
        sign = "" if line.credits.startswith("-") else "+"
        origin = f"{line.type} (position {line.position}) at {line.effective_at} by {line.actor}"
        _say(f"  {sign}{line.credits}  {origin}: {line.rule}")
        _say(
            f"      {line.line} of {line.provider}, {line.credits_per_unit} credits a unit, statement {line.statement}"
        )
        _rounded(line.rounded, before=f"{line.units} units, ")
    _say(f"  = {cost.value}")
    for rule in cost.rules:
        _say(f"  {rule.name}: {rule.sentence}")


def _shown(log_id: str, task: Task, position: int) -> dict[str, Any]:
    return task_view(task, position=position, log_id=log_id)


def _has_value(one: Explanation) -> bool:
    return one.figure is not None or is_set(one.value)


def _as_json(told: Sequence[Explanation], found: _Found) -> None:
    for one in told:
        json_line({"as_of": found.place.position, "head": found.place.hash.hex()} | msgspec.structs.asdict(one))


def _all(told: Sequence[Explanation], found: _Found, cost: Cost | None, *, as_json: bool) -> None:
    """A line for each field that has a value, then the figures and the provider's cost in full."""
    if as_json:
        _as_json([one for one in told if _has_value(one)], found)
        if cost is not None:
            _tell_cost(_Billed(found.place, cost), as_json=True)
        return
    facts = [one for one in told if one.figure is None and is_set(one.value)]
    width = max(len(one.field) for one in facts)
    for one in facts:
        _say(f"{one.field:<{width}}  {_text(one.value)}  {_origin(one.events[-1])}")
    print()
    _in_full([one for one in told if one.figure is not None])
    if cost is not None:
        _cost_in_full(cost)
    _as_of(found.place)


def _in_full(told: Sequence[Explanation]) -> None:
    for one in told:
        _say(f"{one.field} = {_text(one.value)}: {one.meaning}")
        if not one.events:
            _say("  never set: no event gave it a value")
        if one.figure is None:
            for given in one.events:
                _say(f"  {_text(given.value)}  {_origin(given)}")
        else:
            _sum(one, one.figure)
    rates = {one.figure.rate: None for one in told if one.figure is not None}
    for rate in rates:
        _rate(rate)


def _as_of(place: Place) -> None:
    print(f"as of position {place.position}, hash {place.hash.hex()}")


def _sum(one: Explanation, figure: Figure) -> None:
    origins = {given.position: _origin(given) for given in one.events}
    for line in figure.sum:
        sign = "" if line.credits.startswith("-") else "+"
        _say(f"  {sign}{line.credits}  {origins[line.position]}: {line.rule}")
        _rounded(line.rounded)
    _say(f"  = {_text(one.value)}")
    for rule in figure.rules:
        _say(f"  {rule.name}: {rule.sentence}")


def _rounded(how: Inexact | None, *, before: str = "") -> None:
    if how is not None:
        _say(f"      {before}{rounded_words(how)}")


def _rate(rate: Rate) -> None:
    pinned = f"price {rate.price_credits}, pinned at position {rate.pinned_at_position}"
    _say(f"rate: school {rate.school}, rate version {rate.rate_version}, {pinned}")
    if rate.point_of_no_return_percent is None:
        _say("      no point of no return: a cancel is not priced by the second")
    else:
        metered = f"{rate.cancel_credits_per_second} credits/s of {rate.output_seconds} s"
        _say(f"      point of no return {rate.point_of_no_return_percent} %, then {metered}")
    if rate.cancel is not None:
        _say(f"      {rate.cancel}")


def _origin(given: Given) -> str:
    place = f"position {given.position}, v{given.version}"
    return f"{given.type} ({place}) at {given.effective_at} by {given.actor}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _say(line: str) -> None:
    print(plain(line))


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(explain)
