"""`task-ledger bench`: the measured promises, each as the ratio to a yardstick in the same run."""

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from scripts.benches import audits, books, callbacks, reads, replays, sizes, statements, writes
from scripts.benches.load import LoadError
from scripts.benches.measure import Effort, Result, Row, result
from scripts.printed import JsonOption, json_line

ROUNDS = 7
SECONDS_MAX = 60.0
ROWS: dict[str, Row] = {
    row.name: row
    for row in sorted(
        (row for bench in (reads, writes, replays, sizes, books, statements, audits, callbacks) for row in bench.ROWS),
        key=lambda row: int(row.name[1:]),
    )
}
UNASKED = ",".join(name for name, row in ROWS.items() if not row.minutes)


def bench(
    *,
    rows: Annotated[str, typer.Option(metavar="P1,P2,...", help=f"Which of {', '.join(ROWS)}.")] = UNASKED,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Of each row; below 7 they say little.")] = ROUNDS,
    seconds: Annotated[float, typer.Option(min=0.01, max=SECONDS_MAX, help="Of load on each side, each round.")] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Measure ours against yardsticks, by turns; exit 1 when a row misses its pass line by more than 15 %."""
    wanted = [_row(name.strip()) for name in rows.split(",")]
    effort = Effort(rounds, seconds)
    try:
        with _clearing_away():
            results = _tell_json(wanted, effort) if as_json else _tell(wanted, effort)
    except LoadError as error:
        print(f"not to be measured: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if not all(one.passed for one in results):
        raise typer.Exit(1)


@contextmanager
def _clearing_away() -> Iterator[None]:
    """SIGTERM ends this as Ctrl-C does, so that the servers are stopped then too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(wanted: Iterable[Row], effort: Effort) -> list[Result]:
    print(_HEAD, flush=True)
    results = []
    for row in wanted:
        results.append(_result(row, effort))
        print(_line(results[-1]), flush=True)
    print(_foot(results, effort))
    return results


def _tell_json(wanted: Iterable[Row], effort: Effort) -> list[Result]:
    results = []
    for row in wanted:
        results.append(_result(row, effort))
        json_line(_as_json(results[-1]))
    return results


def _row(name: str) -> Row:
    if name not in ROWS:
        raise typer.BadParameter(f"there is no row {name!r}; there are {', '.join(ROWS)}", param_hint="'--rows'")
    return ROWS[name]


def _result(row: Row, effort: Effort) -> Result:
    """What *row* comes to; its rounds are counted on a terminal as they pass."""
    pairs = []
    for pair in row.measure(effort):
        pairs.append(pair)
        if sys.stderr.isatty():
            print(f"{row.name} {len(pairs)}/{effort.rounds}", end="\r", file=sys.stderr, flush=True)
    return result(row, pairs)


_COLUMNS = "{:<4} {:<34} {:>15} {:>15} {:>6} {:>11} {:>9} {:>8}  {}"
_HEAD = _COLUMNS.format("row", "ours / yardstick", "ours", "yardstick", "ratio", "rounds", "pass line", "goal", "")


def _line(one: Result) -> str:
    row = one.row
    sign = ">=" if row.more_is_better else "<="
    return _COLUMNS.format(
        row.name,
        row.what,
        f"{_number(one.ours)} {row.unit}",
        f"{_number(one.yardstick)} {row.unit}",
        f"{one.ratio:.2f}",
        f"{one.ratio_min:.2f}-{one.ratio_max:.2f}",
        f"{sign} {row.pass_line:.2f}",
        f"{sign} {row.goal:.2f}",
        ("passes" if one.passed else "FAILS") + _beside(one),
    )


def _beside(one: Result) -> str:
    return "" if one.beside is None else f", beside {_number(one.beside)} req/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - four digits say enough


def _foot(results: list[Result], effort: Effort) -> str:
    busy = max(one.busy for one in results)
    return (
        f"{effort.rounds} rounds of {effort.seconds:g} s a side by turns; figures are medians, the ratio is the median "
        f"of the rounds' ratios.\nLoad: 64 connections each of readers and of writers, from a generator of our own "
        f"that was busy for at most {busy:.0%} of the time."
    )


def _as_json(one: Result) -> dict[str, object]:
    row = one.row
    return {
        "row": row.name,
        "what": row.what,
        "unit": row.unit,
        "ours": one.ours,
        "yardstick": one.yardstick,
        "ratio": one.ratio,
        "ratio_min": one.ratio_min,
        "ratio_max": one.ratio_max,
        "rounds": one.rounds,
        "pass_line": row.pass_line,
        "goal": row.goal,
        "passed": one.passed,
        "beside_per_second": one.beside,
        "generator": "own",
        "generator_busy": one.busy,
    }


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(bench)
