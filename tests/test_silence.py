"""How long a running task may be silent, and since when anybody could have been heard."""

import pytest

from ledger.silence import JUMP_US, Listening, Patience, silent_before
from ledger.times import US_PER_SECOND

HOUR_US, DAY_US = 3600 * US_PER_SECOND, 86_400 * US_PER_SECOND
NOON_US = 1_767_355_200_000_000
START = Listening(NOON_US, NOON_US, 0)


@pytest.mark.parametrize(
    ("contract", "model", "seconds"),
    [
        ("lemondata", "sora-2", 7200),  # the model beats its contract
        ("lemondata", "seedance-2.0", 900),
        ("beatra", "sora-2", 60),  # a model is its contract's
    ],
)
def test_patience_is_the_models_then_its_contracts_then_everybodys(contract: str, model: str, seconds: int) -> None:
    patience = Patience(seconds=60, of={"lemondata": 900, "lemondata/sora-2": 7200})
    assert patience.us(contract, model) == seconds * US_PER_SECOND


def test_nobody_is_silent_before_somebody_has_listened_that_long() -> None:
    assert silent_before(START.on(NOON_US + HOUR_US - 1, HOUR_US - 1), HOUR_US) is None
    assert silent_before(START.on(NOON_US + HOUR_US, HOUR_US), HOUR_US) == NOON_US


@pytest.mark.parametrize("jump_us", [DAY_US, 365 * DAY_US], ids=["a day", "a year"])
def test_a_clock_that_jumps_ahead_makes_nobody_silent(jump_us: int) -> None:
    jumped = START.on(NOON_US + jump_us, US_PER_SECOND)
    assert silent_before(jumped, HOUR_US) is None
    later = jumped.on(jumped.clock_us + HOUR_US, US_PER_SECOND + HOUR_US)
    assert silent_before(later, HOUR_US) == jumped.clock_us


def test_a_clock_that_is_set_back_makes_the_wait_longer() -> None:
    back = START.on(NOON_US + HOUR_US, HOUR_US).on(NOON_US + HOUR_US - DAY_US, HOUR_US)
    assert silent_before(back, HOUR_US) is None
    noon_again = back.on(NOON_US, HOUR_US + DAY_US - HOUR_US)
    assert silent_before(noon_again, HOUR_US) is None


def test_a_clock_that_gains_a_little_at_each_look_has_not_jumped() -> None:
    listening = START
    for second in range(1, 101):
        listening = listening.on(NOON_US + second * 2 * US_PER_SECOND, second * US_PER_SECOND)
    assert listening.since_us == NOON_US
    assert START.on(NOON_US + JUMP_US, 0).since_us == NOON_US
    assert START.on(NOON_US + JUMP_US + 1, 0).since_us == NOON_US + JUMP_US + 1
