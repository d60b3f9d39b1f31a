"""Lines of callbacks: who is next, and how many may be under way."""

from random import Random

import pytest

from api.callback_lines import Bounds, Lines
from projections.callbacks.rows import Line

MINE, STUCK, THEIRS = Line("a", "r1"), Line("a", "r2"), Line("b", "r1")
WIDE = Bounds(in_all_max=100, account_max=100, receiver_max=8)


def begun(lines: Lines, line: Line, *, now_us: int = 0) -> int:
    """Take *line*, which is the next one, and begin as many as it has room for."""
    taken = lines.take(now_us)
    assert taken is not None
    assert taken[0] == line
    for _ in range(taken[1]):
        lines.begin(line)
    return taken[1]


def test_the_one_that_has_waited_longest_is_next_and_none_before_its_time() -> None:
    lines = Lines(WIDE)
    lines.look(MINE, 30)
    lines.look(THEIRS, 20)
    assert lines.next_us() == 20
    assert lines.take(19) is None
    begun(lines, THEIRS, now_us=30)
    begun(lines, MINE, now_us=30)
    assert lines.take(1000) is None


def test_a_line_begins_with_one_and_doubles_with_each_answer_up_to_its_bound() -> None:
    lines, widths = Lines(WIDE), []
    lines.look(MINE, 0)
    for _ in range(6):
        count = begun(lines, MINE)
        widths.append(count)
        for _ in range(count):
            lines.end(MINE, answered=True)
        lines.look(MINE, 0)
    assert widths[0] == 1
    assert widths[1] == 2
    assert widths[-1] == 8


def test_a_line_that_does_not_answer_has_one_under_way() -> None:
    lines = Lines(WIDE)
    lines.look(STUCK, 0)
    begun(lines, STUCK)
    lines.end(STUCK, answered=True)
    lines.look(STUCK, 0)
    assert begun(lines, STUCK) == 2
    lines.look(STUCK, 0)
    lines.end(STUCK, answered=False)
    assert lines.take(0) is None, "one is under way still"
    lines.end(STUCK, answered=False)
    assert begun(lines, STUCK) == 1


def test_those_of_one_account_hold_up_no_other() -> None:
    lines = Lines(Bounds(in_all_max=100, account_max=2, receiver_max=8))
    for number in range(5):
        lines.look(Line("a", f"r{number}"), 0)
    lines.look(THEIRS, 1)
    begun(lines, Line("a", "r0"))
    begun(lines, Line("a", "r1"))
    begun(lines, THEIRS, now_us=1)
    assert lines.take(1) is None
    lines.end(Line("a", "r1"), answered=False)
    begun(lines, Line("a", "r2"), now_us=1)


def test_all_together_have_a_bound() -> None:
    lines = Lines(Bounds(in_all_max=2, account_max=8, receiver_max=8))
    for name in "abc":
        lines.look(Line(name, "r"), 0)
    begun(lines, Line("a", "r"))
    begun(lines, Line("b", "r"))
    assert lines.take(0) is None
    lines.end(Line("a", "r"), answered=True)
    begun(lines, Line("c", "r"), now_us=5)


def test_a_line_in_which_nothing_is_to_be_done_is_forgotten() -> None:
    lines = Lines(WIDE)
    for number in range(1000):
        line = Line("a", f"r{number}")
        lines.look(line, 0)
        begun(lines, line)
        lines.end(line, answered=True)
        lines.rest(line)
    assert lines._lines == {}
    assert lines._accounts == {}
    assert lines.busy == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_bound_is_passed_and_nobody_is_forgotten(seed: int) -> None:
    dice, bounds = Random(seed), Bounds(in_all_max=7, account_max=4, receiver_max=3)
    lines, under_way = Lines(bounds), list[Line]()
    waiting = {Line(f"a{n % 3}", f"r{n % 5}"): 0 for n in range(15)}
    for now_us in range(3000):
        line = dice.choice([*waiting])
        if now_us < 1500 and dice.random() < 0.5:
            waiting[line] += 1
            lines.look(line, now_us)
        while (taken := lines.take(now_us)) is not None:
            line, room = taken
            count = min(room, waiting[line])
            for _ in range(count):
                lines.begin(line)
                under_way.append(line)
            waiting[line] -= count
            if waiting[line]:
                lines.look(line, now_us)
            else:
                lines.rest(line)
        assert lines.busy == len(under_way) <= bounds.in_all_max
        for one in set(under_way):
            assert under_way.count(one) <= bounds.receiver_max
            assert sum(other.account == one.account for other in under_way) <= bounds.account_max
        if under_way and dice.random() < 0.7:
            over = under_way.pop(dice.randrange(len(under_way)))
            lines.end(over, answered=dice.random() < 0.6)
    assert not any(waiting.values())
