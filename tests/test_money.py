"""Money is an integer of micro-credits; its text is exact in both directions."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.money import (
    AMOUNT_MAX_MICROS,
    Rounding,
    credits_text,
    fixed_text,
    mixed_text,
    parse_credits,
    rounded,
)

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


@pytest.mark.parametrize(
    ("micros", "each", "text"),
    [(80_000_000, 1000, "0.0800"), (49_999, 1000, "0.0000"), (50_000, 1000, "0.0001"), (-50_000, 1000, "-0.0001")],
)
def test_an_amount_in_another_unit_is_rounded_once_and_not_twice(micros: int, each: int, text: str) -> None:
    assert fixed_text(micros, decimals=4, each=each) == text


# Rounding

ROUNDED = [  # above, below; rounded down, and to the nearest: each with what it leaves of the divisor
    (0, 10, (0, 0), (0, 0)),
    (4, 10, (0, 4), (0, 4)),
    (5, 10, (0, 5), (1, -5)),
    (14, 10, (1, 4), (1, 4)),
    (15, 10, (1, 5), (2, -5)),
    (25, 10, (2, 5), (3, -5)),
    (-4, 10, (-1, 6), (0, -4)),
    (-5, 10, (-1, 5), (-1, 5)),
    (-6, 10, (-1, 4), (-1, 4)),
    (-15, 10, (-2, 5), (-2, 5)),
    (7, 1, (7, 0), (7, 0)),
    (-7, 1, (-7, 0), (-7, 0)),
    (1, 3, (0, 1), (0, 1)),
    (2, 3, (0, 2), (1, -1)),
    (-2, 3, (-1, 1), (-1, 1)),
]


@pytest.mark.parametrize(("above", "below", "down", "nearest"), ROUNDED)
def test_an_amount_is_rounded_the_way_that_is_named_and_leaves_what_it_lacks(
    above: int, below: int, down: tuple[int, int], nearest: tuple[int, int]
) -> None:
    assert rounded(above, below, to=Rounding.DOWN) == (*down, below)
    assert rounded(above, below, to=Rounding.NEAREST) == (*nearest, below)


@given(st.integers(-(AMOUNT_MAX_MICROS**2), AMOUNT_MAX_MICROS**2), st.integers(1, 10**12))
@settings(deadline=None)
def test_rounding_loses_nothing_and_leaves_no_more_than_its_direction_allows(above: int, below: int) -> None:
    down, nearest = (rounded(above, below, to=to) for to in Rounding)
    for one in (down, nearest):
        assert one.whole + one.remainder == Fraction(above, below)
    assert 0 <= down.remainder < 1
    assert abs(nearest.remainder) <= Fraction(1, 2)
    assert rounded(-above, below, to=Rounding.NEAREST).whole == -nearest.whole


@pytest.mark.parametrize("below", [0, -1])
def test_to_divide_by_nothing_or_less_is_a_bug(below: int) -> None:
    with pytest.raises(AssertionError):
        rounded(1, below, to=Rounding.DOWN)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(2), "2"),
        (Fraction(-2), "-2"),
        (Fraction(9, 20), "9/20"),
        (Fraction(-1, 3), "-1/3"),
        (Fraction(1099989, 20), "54999 9/20"),
        (Fraction(-4, 3), "-1 1/3"),
    ],
)
def test_an_exact_amount_is_told_as_a_whole_number_and_a_fraction(amount: Fraction, text: str) -> None:
    assert mixed_text(amount) == text
