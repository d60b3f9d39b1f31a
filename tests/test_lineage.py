"""The names that a log had, and which cursors are still good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cursors import position_cursor, position_of
from ledger.lineage import ANCESTORS_MAX, Ancestor, Lineage, decode, descended, earlier, encode

FIRST = descended((), log_id="a" * 16, position=100, end="aa")
SECOND = descended(FIRST, log_id="b" * 16, position=150, end="bb")


def test_a_log_that_was_restored_once_has_one_earlier_name() -> None:
    assert earlier(FIRST) == {"a" * 16: 100}


def test_a_name_keeps_the_position_that_it_shares_whatever_follows_later() -> None:
    assert earlier(SECOND) == {"a" * 16: 100, "b" * 16: 150}


def test_a_restore_to_an_earlier_place_cuts_every_earlier_name_there() -> None:
    third = descended(SECOND, log_id="c" * 16, position=120, end="cc")
    assert earlier(third) == {"a" * 16: 100, "b" * 16: 120, "c" * 16: 120}
    assert [one.hash for one in third] == ["aa", "cc", "cc"]


def test_only_so_many_names_are_remembered_and_those_are_the_last() -> None:
    lineage: Lineage = ()
    for number in range(ANCESTORS_MAX + 3):
        lineage = descended(lineage, log_id=f"{number:016x}", position=number, end="")
    assert [one.position for one in lineage] == list(range(3, ANCESTORS_MAX + 3))


@given(st.integers(0, 300))
def test_a_cursor_is_good_where_its_log_and_this_one_are_the_same(position: int) -> None:
    def read(name: str) -> int | None:
        return position_of("c" * 16, position_cursor(name * 16, position), earlier=earlier(SECOND))

    assert read("c") == position
    assert read("a") == (position if position <= 100 else None)
    assert read("b") == (position if position <= 150 else None)
    assert read("d") is None


def test_who_knows_of_no_restore_takes_no_earlier_cursor() -> None:
    assert position_of("c" * 16, position_cursor("a" * 16, 1)) is None


def test_a_lineage_comes_back_as_it_was_stored() -> None:
    assert decode(encode(SECOND)) == SECOND
    assert SECOND[0] == Ancestor(log_id="a" * 16, position=100, hash="aa")


@pytest.mark.parametrize("stored", [b"", b"{}", b'[{"log_id":"a"}]', b"\xff"])
def test_what_is_no_lineage_is_told(stored: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(stored)
