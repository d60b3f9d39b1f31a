"""Money: integers of micro-credits inside, exact decimal text at the edges.

One credit is 1,000,000 micro-credits. There is no float on any path: text is parsed digit by digit and
printed digit by digit. Where an amount is no whole number of what it is told in, because a rate, a share or a contract
with fewer decimals makes it so, `rounded` is the one place that drops anything: whoever asks names the direction, and
has the remainder in hand. No remainder is stored: what an amount was made of stands in the log beside it, and the
remainder follows from that whenever somebody wants to see it.
"""

import re
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MICROS_PER_CREDIT = 1_000_000
DECIMALS = 6
AMOUNT_MAX_MICROS = 10**12 * MICROS_PER_CREDIT
"""The largest single amount: a trillion credits, so that nine of the largest still add up within 64 bits."""
TEXTS_MAX = 1024
"""Amounts whose text is kept: what is printed is mostly nothing, or one of a few prices."""

_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,6}))?", re.ASCII)


def parse_credits(text: str) -> int | None:
    """Micro-credits of a plain decimal such as ``"1.5"``; None when *text* is anything else.

    Refused: signs, exponents, blanks, leading zeros, more than six decimals, more than `AMOUNT_MAX_MICROS`.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match.groups(default="")
    micros = int(whole) * MICROS_PER_CREDIT + int(fraction.ljust(DECIMALS, "0"))
    return micros if micros <= AMOUNT_MAX_MICROS else None


@lru_cache(maxsize=TEXTS_MAX)
def credits_text(micros: int) -> str:
    """The amount as the shortest exact decimal: ``1500000`` is ``"1.5"``, ``2000000`` is ``"2"``."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS_PER_CREDIT)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:06d}".rstrip("0")


def fixed_text(micros: int, *, decimals: int, each: int = 1) -> str:
    """The amount with exactly *decimals* decimals (1-6), for contracts that always print that many.

    In units that are *each* so many credits; to the nearest, for nobody is charged by what is shown.
    """
    assert 1 <= decimals <= DECIMALS
    units = rounded(micros, each * 10 ** (DECIMALS - decimals), to=Rounding.NEAREST).whole
    sign = "-" if units < 0 else ""
    whole, fraction = divmod(abs(units), 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d}"


class Rounding(StrEnum):
    """Which whole number stands for what lies between two."""

    DOWN = "down"
    """The lower one."""
    NEAREST = "nearest"
    """The nearer one, halves away from zero, so that what is given back is rounded as what was taken."""


class Rounded(NamedTuple):
    """A quotient as a whole number: with ``left / divisor`` added it is exact."""

    whole: int
    left: int
    divisor: int
    """> 0, and more than what is left."""

    @property
    def remainder(self) -> Fraction:
        """What the whole number lacks; less than 0: it is more than it should be."""
        return Fraction(self.left, self.divisor)


def rounded(above: int, below: int, *, to: Rounding) -> Rounded:
    """*above* / *below* as a whole number; *below* is more than 0."""
    assert below > 0
    whole, left = divmod(above, below)
    if left and to is Rounding.NEAREST and (2 * left > below or (2 * left == below and above > 0)):
        whole, left = whole + 1, left - below
    return Rounded(whole, left, below)


def mixed_text(amount: Fraction) -> str:
    """An exact amount, as a whole number and a fraction: ``"54999 9/20"``, ``"-1/3"``, ``"2"``."""
    sign = "-" if amount < 0 else ""
    whole, left = divmod(abs(amount.numerator), amount.denominator)
    if not left:
        return f"{sign}{whole}"
    return f"{sign}{f'{whole} ' if whole else ''}{left}/{amount.denominator}"
