"""Time: integer microseconds since the Unix epoch, UTC; text only at the edges.

Integers because nothing formatted may enter a hash, and because two engines must agree on every bit.
"""

import re
from datetime import datetime, timedelta
from functools import lru_cache

US_PER_MS = 1000
US_PER_SECOND = 1_000_000
US_PER_HOUR = 3600 * US_PER_SECOND
US_PER_DAY = 24 * US_PER_HOUR
SECONDS_MAX = 1024
"""Seconds whose text is kept: what is printed together is mostly of the same few."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive, because UTC prints as +00:00
END_US = 253_402_300_800 * US_PER_SECOND
"""The year 10000, where RFC 3339 ends."""
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt]((?:[01]\d|2[0-3])(?::[0-5]\d){2})(?:\.(\d{1,9}))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",  # not left to `fromisoformat`, which takes more: +01:99, 24:00
    re.ASCII,
)


def rfc3339(at_us: int) -> str:
    """``2026-01-02T03:04:05.250000Z``; whole seconds are printed without a fraction."""
    seconds, fraction = divmod(at_us, US_PER_SECOND)
    return f"{_to_the_second(seconds)}.{fraction:06d}Z" if fraction else f"{_to_the_second(seconds)}Z"


@lru_cache(maxsize=SECONDS_MAX)
def _to_the_second(at_seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=at_seconds)).isoformat()


def parse_rfc3339(text: str) -> int | None:
    """Microseconds of an RFC 3339 time, digits past the sixth cut off; None when *text* is none or before 1970."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups(default="")
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        return None
    at_us = int(whole.timestamp()) * US_PER_SECOND + int(fraction[:6].ljust(6, "0"))
    return at_us if 0 <= at_us < END_US else None
