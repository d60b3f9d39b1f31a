"""Money: integers of micro-credits inside, exact decimal text at the edges.

One credit is 1,000,000 micro-credits. There is no float on any path: text is parsed digit by digit and
printed digit by digit, and where a contract shows fewer decimals than we keep, `rounded` is the one place
that drops any.
"""

import re
from functools import lru_cache

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


def fixed_text(micros: int, *, decimals: int) -> str:
    """The amount with exactly *decimals* decimals (1-6), for contracts that always print that many."""
    assert 1 <= decimals <= DECIMALS
    step = 10 ** (DECIMALS - decimals)
    units = rounded(micros, step) // step
    sign = "-" if units < 0 else ""
    whole, fraction = divmod(abs(units), 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d}"


def rounded(micros: int, step_micros: int) -> int:
    """*micros* to the nearest multiple of *step_micros*, halves away from zero.

    The remainder is ``micros - rounded(micros, step)``: rounding is for display and never enters the log.
    """
    half = step_micros // 2
    magnitude = (abs(micros) + half) // step_micros * step_micros
    return -magnitude if micros < 0 else magnitude
