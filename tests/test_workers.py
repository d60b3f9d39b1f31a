"""Work in parts: all of them, each once, few at a time, and by somebody who gives way."""

import os
import sys
from collections.abc import Iterator

import pytest

from projections.replay import workers
from projections.replay.workers import AHEAD_MAX, NICE, spread, workers_for


@pytest.mark.parametrize("events", [0, workers.ALONE_EVENTS], ids=["a thread", "and processes"])
def test_each_part_is_worked_on_once_and_told_by_its_name(events: int) -> None:
    with workers_for(events, 2) as crew:
        told = sorted(spread(crew, pow, [(f"part {n}", (n, 2)) for n in range(10)]))
    assert told == [(f"part {n}", n * n) for n in range(10)]


def test_no_more_is_asked_for_than_a_few_parts_ahead() -> None:
    asked: list[int] = []

    def endless() -> Iterator[tuple[int, tuple[int]]]:
        for number in range(1000):
            asked.append(number)
            yield number, (number,)

    with workers_for(0, 1) as crew:
        results = spread(crew, abs, endless())
        for done in range(20):
            next(results)
            assert len(asked) <= done + AHEAD_MAX + 2


def test_what_a_part_raises_is_raised() -> None:
    with workers_for(0, 1) as crew, pytest.raises(ZeroDivisionError):
        list(spread(crew, divmod, [(1, (1, 0))]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
@pytest.mark.parametrize("events", [0, workers.ALONE_EVENTS], ids=["a thread", "and processes"])
def test_the_work_gives_way_to_everybody_and_the_process_that_asked_for_it_does_not(events: int) -> None:
    before = os.nice(0)
    with workers_for(events, 2) as crew:
        told = {nice for _, nice in spread(crew, os.nice, [(number, (0,)) for number in range(len(crew))])}
    assert (told, os.nice(0)) == ({min(before + NICE, 19)}, before)


def test_a_long_log_is_worked_on_by_this_process_and_by_as_many_others_as_there_are_workers_beside_it() -> None:
    with workers_for(workers.ALONE_EVENTS, 3) as crew:
        told = {process for _, process in spread(crew, os.getpid, [(number, ()) for number in range(len(crew))])}
    assert os.getpid() in told
    assert len(told) == 3
