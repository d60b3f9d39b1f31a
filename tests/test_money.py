"""Money is an integer of micro-credits; its text is exact in both directions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.money import AMOUNT_MAX_MICROS, credits_text, fixed_text, parse_credits, rounded

amounts = st.integers(0, AMOUNT_MAX_MICROS)


# Reading


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0.000000", 0),
        ("0.000001", 1),
        ("0.1", 100_000),
        ("0.10", 100_000),
        ("0.01", 10_000),
        ("1", 1_000_000),
        ("1.5", 1_500_000),
        ("1.050000", 1_050_000),
        ("10", 10_000_000),
        ("80.0000", 80_000_000),
        ("12.345678", 12_345_678),
        ("999999999999.999999", 999_999_999_999_999_999),
        ("1000000000000", AMOUNT_MAX_MICROS),
        ("1000000000000.000000", AMOUNT_MAX_MICROS),
    ],
)
def test_decimal_text_is_read_digit_by_digit(text: str, micros: int) -> None:
    assert parse_credits(text) == micros


REFUSED = {
    "nothing": "",
    "a blank": " ",
    "a blank before": " 1",
    "a blank after": "1 ",
    "a newline after": "1\n",
    "a newline after decimals": "1.5\n",
    "a tab": "\t1",
    "a no-break space": "1\u00a0",
    "a plus": "+1",
    "a minus": "-1",
    "minus zero": "-0",
    "a unicode minus": "\u22121",
    "an exponent": "1e3",
    "an upper-case exponent": "1E3",
    "a leading zero": "01",
    "leading zeros": "00.5",
    "no whole part": ".5",
    "no decimals": "1.",
    "only a point": ".",
    "two points": "1.2.3",
    "a comma": "1,5",
    "grouping": "1,000",
    "underscores": "1_000",
    "seven decimals": "0.0000001",
    "seven decimals that are zero": "1.0000000",
    "too large by a micro": "1000000000000.000001",
    "too large by a digit": "10000000000000",
    "far too large": "9" * 5000,
    "arabic digits": "\u0661\u0662",
    "arabic decimals": "1.\u0665",
    "full-width digits": "\uff11",
    "superscripts": "1\u00b2",
    "not a number": "NaN",
    "infinity": "Infinity",
    "short infinity": "inf",
    "hex": "0x10",
    "a currency": "$1",
    "words": "one",
    "a nul": "1\0",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=why) for why, text in REFUSED.items()])
def test_anything_but_a_plain_decimal_is_refused(text: str) -> None:
    assert parse_credits(text) is None


@given(st.text("0123456789.+-eE_ ,\u0661\n", max_size=24))
@settings(deadline=None)
def test_what_is_read_is_what_was_written_but_for_trailing_zeros(text: str) -> None:
    micros = parse_credits(text)
    if micros is None:
        return
    canonical = text.rstrip("0").removesuffix(".") if "." in text else text
    assert credits_text(micros) == canonical


def test_nine_of_the_largest_amounts_add_up_within_64_bits() -> None:
    assert 9 * AMOUNT_MAX_MICROS < 2**63 <= 10 * AMOUNT_MAX_MICROS


# Printing


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (100_000, "0.1"),
        (1_000_000, "1"),
        (1_500_000, "1.5"),
        (10_000_000, "10"),
        (100_000_001, "100.000001"),
        (-1, "-0.000001"),
        (-1_500_000, "-1.5"),
        (-20_000_000, "-20"),
        (AMOUNT_MAX_MICROS, "1000000000000"),
    ],
)
def test_an_amount_is_printed_as_the_shortest_exact_decimal(micros: int, text: str) -> None:
    assert credits_text(micros) == text


@given(amounts)
@settings(deadline=None)
def test_every_amount_survives_its_text(micros: int) -> None:
    assert parse_credits(credits_text(micros)) == micros
    assert parse_credits(fixed_text(micros, decimals=6)) == micros


@pytest.mark.parametrize(
    ("micros", "decimals", "text"),
    [
        (0, 4, "0.0000"),
        (80_000_000, 4, "80.0000"),
        (80_000, 4, "0.0800"),
        (1_234_567, 6, "1.234567"),
        (1_234_567, 5, "1.23457"),
        (1_234_567, 4, "1.2346"),
        (1_234_567, 1, "1.2"),
        (50, 4, "0.0001"),
        (49, 4, "0.0000"),
        (999_950, 4, "1.0000"),
        (999_949, 4, "0.9999"),
        (950_000, 1, "1.0"),
        (-50, 4, "-0.0001"),
        (-49, 4, "0.0000"),
        (-1_250_000, 1, "-1.3"),
    ],
)
def test_a_contract_that_shows_fewer_decimals_shows_the_nearest(micros: int, decimals: int, text: str) -> None:
    assert fixed_text(micros, decimals=decimals) == text


@pytest.mark.parametrize("decimals", [0, 7, -1])
def test_other_numbers_of_decimals_are_a_bug(decimals: int) -> None:
    with pytest.raises(AssertionError):
        fixed_text(1, decimals=decimals)


# Rounding


@pytest.mark.parametrize(
    ("micros", "step", "nearest"),
    [
        (0, 10, 0),
        (4, 10, 0),
        (5, 10, 10),
        (14, 10, 10),
        (15, 10, 20),
        (25, 10, 30),
        (-4, 10, 0),
        (-5, 10, -10),
        (-15, 10, -20),
        (7, 1, 7),
        (-7, 1, -7),
        (1, 3, 0),
        (2, 3, 3),
        (-2, 3, -3),
    ],
)
def test_halves_are_rounded_away_from_zero(micros: int, step: int, nearest: int) -> None:
    assert rounded(micros, step) == nearest


@given(st.integers(-AMOUNT_MAX_MICROS, AMOUNT_MAX_MICROS), st.integers(1, 10**6))
@settings(deadline=None)
def test_rounding_leaves_at_most_half_a_step_and_loses_nothing(micros: int, step: int) -> None:
    nearest = rounded(micros, step)
    remainder = micros - nearest
    assert nearest % step == 0
    assert 2 * abs(remainder) <= step
    assert rounded(nearest, step) == nearest
    assert rounded(-micros, step) == -nearest
