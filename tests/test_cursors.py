"""Cursors: opaque, bound to their log, and nothing else is one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cursors import cursor, place, position_cursor, position_of, task_of

LOG, OTHER_LOG = "0123456789abcdef", "0123456789abcdee"


@pytest.mark.parametrize("position", [0, 1, 255, 256, 2**31, 2**62, 2**63 - 1])
def test_a_position_comes_back_from_its_cursor(position: int) -> None:
    assert position_of(LOG, position_cursor(LOG, position)) == position


@given(st.binary(max_size=40))
def test_any_place_comes_back_from_its_cursor(raw: bytes) -> None:
    assert place(LOG, cursor(LOG, raw)) == raw


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_cursor_can_stand_in_a_url_as_it_is(position: int) -> None:
    text = position_cursor(LOG, position)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def test_a_cursor_of_another_log_is_none() -> None:
    assert position_of(OTHER_LOG, position_cursor(LOG, 7)) is None
    assert position_of(LOG[:-1], position_cursor(LOG, 7)) is None
    assert place(OTHER_LOG, cursor(LOG, b"x")) is None


def test_the_cursor_of_a_list_is_none_of_the_log() -> None:
    assert position_of(LOG, cursor(LOG, bytes(16))) is None
    assert position_of(LOG, cursor(LOG, b"")) is None


def test_a_task_comes_back_from_the_cursor_of_a_list_and_from_no_other() -> None:
    assert task_of(LOG, cursor(LOG, bytes(range(16)))) == bytes(range(16))
    assert task_of(OTHER_LOG, cursor(LOG, bytes(16))) is None
    assert task_of(LOG, cursor(LOG, bytes(15))) is None
    assert task_of(LOG, position_cursor(LOG, 7)) is None
    assert task_of(LOG, "no cursor") is None


def test_a_position_that_no_log_can_reach_is_none() -> None:
    assert position_of(LOG, cursor(LOG, (2**63).to_bytes(8, "big"))) is None
    assert position_of(LOG, cursor(LOG, b"\xff" * 8)) is None


VALID = position_cursor(LOG, 7)
NO_CURSORS = ["", "=", "====", "a", "!", "é", "\ud800", "\x00", " " + VALID, VALID + "\n", VALID + "!", VALID[:-1]]
NO_CURSORS += [VALID[1:], VALID + "A", VALID.swapcase(), "0", "7", "-1", "null", base64.b64encode(b"7").decode()]


@pytest.mark.parametrize("text", NO_CURSORS)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert position_of(LOG, text) is None


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_it(text: str) -> None:
    assert position_of(LOG, text) is None
