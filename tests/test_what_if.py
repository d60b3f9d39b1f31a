"""What if: what tasks would have cost under another catalogue."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.catalogue import DEFAULT, Catalogue, Model, read
from ledger.commands import TaskCommand
from ledger.events import Created, School, TaskEvent, Terms
from ledger.rules import decide
from ledger.settlement import violations
from ledger.task import NO_TASK, evolve
from projections.replay.what_if import Cost, Rates, what_if
from scripts.cli import app, run
from tests import stored
from tests.rules_dsl import (
    BYTESPIKE as POLICY,
)
from tests.rules_dsl import (
    HOLD,
    ID,
    METERED,
    ON_SUCCESS,
    PREPAID,
    cancel,
    charge,
    complete,
    create,
    fail,
    progress,
    start,
)
from tests.test_histories import SEEDS, history

CONTRACT, MODEL = "bytespike", "wan-2.6"


def of_model(events: Sequence[TaskEvent]) -> list[TaskEvent]:
    """The same events, of a model that the catalogue has."""
    created = events[0]
    assert isinstance(created, Created)
    return [replace(created, contract=CONTRACT, model=MODEL), *events[1:]]


@pytest.mark.parametrize("school", School)
def test_the_same_rules_make_no_difference_to_any_history(school: School) -> None:
    same = Rates(read(), read())
    for seed in range(SEEDS):
        events = [event for step in history(school, seed) for event in step.events]
        cost = what_if(ID, of_model(events), same)
        assert cost.more_micros == 0, f"{school}, seed {seed}"
        assert (cost.would.charged_micros, cost.would.refunded_micros, cost.would.held_micros) == (
            cost.was.charged_micros,
            cost.was.refunded_micros,
            cost.was.held_micros,
        ), f"{school}, seed {seed}"


@pytest.mark.parametrize("school", School)
def test_at_another_price_no_history_breaks_an_invariant_of_money(school: School) -> None:
    base = read()
    models = {**base.models}
    for ratio in ("0.01", "40", "0"):
        models[CONTRACT, MODEL] = replace(base.models[CONTRACT, MODEL], price_credits=ratio)
        other = base._replace(models=models, terms={name: model.terms("x") for name, model in models.items()})
        for seed in range(SEEDS):
            events = [event for step in history(school, seed) for event in step.events]
            cost = what_if(ID, of_model(events), Rates(base, other))
            assert violations(cost.would) == [], f"{school}, seed {seed}, {ratio}"


CREDIT = 1_000_000
DEARER = {"cancel_credits_per_second": "1.25"}
Cases = tuple[str, list[TaskCommand], Terms, dict[str, Any], tuple[int, int]]
CASES: list[
    Cases
] = [  # what happens, under which terms; how the model changes; what it cost and would cost, in credits
    ("completed at the estimate", [start(), complete()], HOLD, {"price_credits": "20"}, (10, 20)),
    ("completed at its own cost", [start(), complete(5)], HOLD, {"price_credits": "20"}, (5, 10)),
    ("failed", [start(), fail()], HOLD, {"price_credits": "20"}, (0, 0)),
    ("still held", [start()], HOLD, {"price_credits": "20"}, (10, 20)),
    ("prepaid", [start(), complete()], PREPAID, {"price_credits": "5"}, (10, 5)),
    ("charged on success", [start(), complete()], ON_SUCCESS, {"price_credits": "5"}, (10, 5)),
    ("cancelled in time", [start(), progress(20), cancel(POLICY)], METERED, {"price_credits": "20"}, (0, 0)),
    ("cancelled past it", [start(), progress(40), cancel(POLICY)], METERED, {"point_of_no_return_percent": 50}, (8, 0)),
    ("dearer to cancel", [start(), progress(40), cancel(POLICY)], METERED, DEARER, (8, 10)),
    ("charged by a worker", [start(), charge(4), fail()], HOLD, {"price_credits": "5"}, (4, 2)),
]


@pytest.mark.parametrize(("commands", "terms", "changes", "costs"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_a_task_would_cost(
    commands: list[TaskCommand], terms: Terms, changes: dict[str, Any], costs: tuple[float, float]
) -> None:
    task, events = NO_TASK, list[TaskEvent]()
    for command in [create(terms), *commands]:
        new = decide(task, command)
        task, events = reduce(evolve, new, task), events + new
    model = replace(
        read().models[CONTRACT, MODEL],
        price_credits="10",
        point_of_no_return_percent=25,
        cancel_credits_per_second="1",
        output_seconds=20,
    )
    cost = what_if(ID, of_model(events), Rates(having(model), having(replace(model, **changes))))
    assert paid(cost) == costs


def having(model: Model) -> Catalogue:
    """The default catalogue with the model at other terms."""
    models = {**read().models, (CONTRACT, MODEL): model}
    return Catalogue("2026-01", models, {name: one.terms("2026-01") for name, one in models.items()})


def paid(cost: Cost) -> tuple[float, float]:
    """What was paid or is held, and what would be."""
    was, would = ((task.net_micros + task.held_micros) / CREDIT for task in cost[:2])
    return was, would


def test_what_is_rounded_leaves_a_remainder_that_is_told() -> None:
    task, events = NO_TASK, list[TaskEvent]()
    for command in (create(), start(), complete(5)):
        new = decide(task, command)
        task, events = reduce(evolve, new, task), events + new
    model = replace(read().models[CONTRACT, MODEL], price_credits="3")
    cost = what_if(ID, of_model(events), Rates(having(model), having(replace(model, price_credits="1"))))
    assert cost.would.terms.estimated_micros == 3_333_333
    assert cost.would.net_micros == 1_666_667
    assert cost.remainder == Fraction(1, 3) - Fraction(1, 3)  # the estimate was rounded down, the actual cost up
    failed = what_if(ID, of_model(events[:-2]), Rates(having(model), having(replace(model, price_credits="1"))))
    assert failed.remainder == Fraction(1, 3)


def test_a_model_that_the_other_catalogue_does_not_have_costs_what_it_cost() -> None:
    base = read()
    events = of_model([event for step in history(School.HOLD, 3) for event in step.events])
    without = {name: model for name, model in base.models.items() if name != (CONTRACT, MODEL)}
    assert what_if(ID, events, Rates(base, base._replace(models=without))).more_micros == 0


def test_a_reader_who_has_left_ends_the_verb_quietly(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.toml"
    stored.make(path)
    other.write_text(DEFAULT.read_text().replace('price_credits = "', 'price_credits = "9'))
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "scripts.replay", "--store", f"sqlite:{path}", "--json", "--what-if", str(other)],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_catalogue_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.db"
    stored.make(path)
    assert run(app, ["replay", "--store", f"sqlite:{path}", "--what-if", "none.toml"]) == 2
    assert "'--what-if': none.toml: No such file or directory" in capsys.readouterr().err


def test_the_verb_tells_who_would_pay_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.toml"
    stored.make(path)
    verb = ["replay", "--store", f"sqlite:{path}", "--json", "--what-if"]
    assert run(app, [*verb, str(DEFAULT)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "differing_tasks": 0,
        "more_credits": "0",
        "remainder_micros": "0",
    }
    (model,) = {row[0] for row in rows(path, "SELECT DISTINCT model FROM tasks")}
    price = read().models["lemondata", model].price_credits
    other.write_text(DEFAULT.read_text().replace(f'price_credits = "{price}"', f'price_credits = "9{price}"'))
    before = path.read_bytes()
    third = tmp_path / "third.toml"
    third.write_text(DEFAULT.read_text().replace(f'price_credits = "{price}"', 'price_credits = "0.000007"'))
    assert run(app, [*verb[:-2], "--what-if", str(DEFAULT), "--against", str(third)]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert run(app, [*verb, str(DEFAULT), "--against", str(third)]) == 0
    remainder = json.loads(capsys.readouterr().out.splitlines()[-1])["remainder_micros"]
    assert Fraction(remainder.rpartition(" ")[2]).denominator == 7
    assert said == f"amounts are rounded to the nearest micro-credit: remainder {remainder} of one in all"
    assert run(app, [*verb, str(other)]) == 0
    *lines, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert total["differing_tasks"] == len([line for line in lines if "task" in line]) > 0
    assert path.read_bytes() == before
    assert run(app, [*verb, str(tmp_path / "none.toml")]) == 2


def rows(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()
