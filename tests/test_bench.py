"""The benchmark: its arithmetic, its load, and one small run of every row. Nothing here depends on how fast we are."""

import asyncio
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle, repeat
from pathlib import Path

import msgspec
import pytest
import typer

from scripts.bench import ROWS, bench
from scripts.benches import load
from scripts.benches.load import LoadError, Traffic, drive, request
from scripts.benches.measure import Effort, Figure, Pair, Row, by_turns, percentile, result
from scripts.cli import run

ROOT = Path(__file__).parent.parent


# Arithmetic


def row(*, more_is_better: bool = True, pass_line: float = 0.8) -> Row:
    return Row("P0", "a / b", "req/s", pass_line, 1, lambda _: iter(()), more_is_better)


def pairs(*figures: tuple[float, float]) -> list[Pair]:
    return [Pair(Figure(ours, 0.1), Figure(yardstick, 0.3)) for ours, yardstick in figures]


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = result(row(), pairs((10, 10), (30, 20), (90, 100)))
    assert (found.ours, found.yardstick) == (30, 20)
    assert (found.ratio, found.ratio_min, found.ratio_max) == (1, 0.9, 1.5)
    assert (found.rounds, found.busy, found.beside) == (3, 0.3, None)


def test_what_was_answered_beside_is_told_as_a_median() -> None:
    rounds = [Pair(Figure(1, beside=beside), Figure(1)) for beside in (5.0, 9.0, 7.0)]
    assert result(row(), rounds).beside == 7


BANDS = [
    (True, 0.8, 0.80, True),
    (True, 0.8, 0.69, True),
    (True, 0.8, 0.67, False),
    (False, 3, 3.4, True),
    (False, 3, 3.5, False),
]


@pytest.mark.parametrize(("more_is_better", "pass_line", "ratio", "passed"), BANDS)
def test_a_row_passes_within_a_band_of_its_line(
    more_is_better: bool,  # noqa: FBT001 - a column of the table
    pass_line: float,
    ratio: float,
    passed: bool,  # noqa: FBT001 - the same
) -> None:
    found = result(row(more_is_better=more_is_better, pass_line=pass_line), pairs((ratio, 1)))
    assert found.passed is passed


def test_the_sides_take_turns_after_a_round_that_does_not_count() -> None:
    order: list[str] = []

    def measure(name: str) -> Figure:
        order.append(name)
        return Figure(len(order))

    found = list(by_turns(Effort(2, 1), lambda: measure("a"), lambda: measure("b")))
    assert order == ["a", "b"] * 3
    assert [(pair.ours.value, pair.yardstick.value) for pair in found] == [(3, 4), (5, 6)]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 99) == 100
    assert percentile([7], 99) == 7


# Load


class Told:
    """A server that answers each request with these pieces, one write each, until it is told to hang up."""

    def __init__(self, pieces: list[bytes], *, answers_max: int = 1_000_000) -> None:
        self.pieces, self.left = pieces, answers_max
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self.left > 0:
                self.left -= 1
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(told: Told) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield host, port
    finally:
        server.close()
        await server.wait_closed()


ANSWER = [b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\nServer: t\r\n", b"\r\nhe", b"llo"]
ASKED = request("GET", "/x", key="k")


async def test_answers_may_come_in_pieces() -> None:
    told = Told(ANSWER)
    async with listening(told) as address:
        (found,) = await asyncio.to_thread(
            drive, address, Traffic(repeat(ASKED, 10), connections=3, keep_bodies=True), seconds=5
        )
    assert found.bodies == [b"hello"] * 10
    assert len(found.latencies) == 10
    assert all(0 < latency < 5 for latency in found.latencies)
    assert found.rate.value > 0
    assert told.asked == [ASKED] * 10


async def test_load_ends_with_its_time_and_each_traffic_is_told_apart() -> None:
    async with listening(Told([b"".join(ANSWER)])) as address:
        few, many = await asyncio.to_thread(
            drive, address, Traffic(repeat(ASKED, 2), connections=1), Traffic(cycle([ASKED]), connections=2),
            seconds=0.1,
        )  # fmt: skip
    assert len(few.latencies) == 2
    assert len(many.latencies) > 2
    assert 0.05 < many.seconds < 5
    assert few.bodies == many.bodies == []


WRONG = [
    (Told([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]), "expected 200"),
    (Told(ANSWER, answers_max=0), "the connection broke"),
    (Told([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"]), "no answer for"),
]


@pytest.mark.parametrize(("told", "reason"), WRONG)
async def test_a_server_that_does_not_answer_well_is_not_measured(
    told: Told, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "STALL_SECONDS", 0.2)
    async with listening(told) as address:
        with pytest.raises(LoadError, match=reason):
            await asyncio.to_thread(drive, address, Traffic(repeat(ASKED, 3), connections=1), seconds=1)


# The command


@pytest.fixture
def verb() -> Iterator[typer.Typer]:
    threads = threading.active_count()
    alone = typer.Typer(add_completion=False)
    alone.command()(bench)
    yield alone
    assert threading.active_count() == threads


def test_every_row_can_be_measured(verb: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, ["--rounds", "1", "--seconds", "0.02", "--json"]) in {0, 1}
    out, err = capsys.readouterr()
    assert err == ""
    lines = [msgspec.json.decode(line) for line in out.splitlines()]
    assert [line["row"] for line in lines] == [name for name, row in ROWS.items() if not row.minutes]
    for line in lines:
        assert line["ours"] > 0
        assert line["yardstick"] > 0
        assert line["ratio"] == line["ours"] / line["yardstick"]
        assert line["rounds"] == 1
        assert (line["beside_per_second"] is not None) == (line["row"] in {"P8", "P19"})


def test_rows_that_take_minutes_are_measured_when_they_are_asked_for(
    verb: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [name for name, row in ROWS.items() if row.minutes]
    assert asked == ["P7", "P9", "P10", "P21"]
    assert run(verb, ["--rows", ",".join(asked), "--rounds", "1", "--seconds", "0.01", "--json"]) in {0, 1}
    out, err = capsys.readouterr()
    assert err == ""
    lines = {line["row"]: line for line in map(msgspec.json.decode, out.splitlines())}
    assert [*lines] == asked
    assert all(line["ours"] > 0 for line in lines.values())
    assert [lines[name]["yardstick"] for name in ("P9", "P10", "P21")] == [0.5, 256, 2]


def test_a_table_is_printed_for_people(verb: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, ["--rows", "P1", "--rounds", "2", "--seconds", "0.02"]) in {0, 1}
    head, line, *foot = capsys.readouterr().out.splitlines()
    assert "yardstick" in head
    assert line.startswith("P1 ")
    assert ">= 0.85" in line
    assert "generator of our own" in "".join(foot)


WRONG_USE = [["--rows", "P1,P99"], ["--rows", ""], ["--rounds", "0"], ["--seconds", "0"], ["--seconds", "3600"]]


@pytest.mark.parametrize("arguments", WRONG_USE)
def test_wrong_use_is_one_line_and_exit_code_2(
    verb: typer.Typer, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


async def test_a_signal_stops_the_servers_too() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.bench", "--rows", "P1", "--seconds", "60",
        stdout=PIPE, stderr=PIPE, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert b"yardstick" in await process.stdout.readline()
    await asyncio.sleep(3)
    process.terminate()
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):  # nobody is left of its group
        os.killpg(process.pid, signal.SIGKILL)
