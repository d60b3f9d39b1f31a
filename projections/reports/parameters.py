"""The parameters of a report, read from text: the same on the command line and in a query, refused alike."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from ledger.times import parse_rfc3339
from projections.books.books import FOREVER_US, Clock
from projections.reports.report import By, Wanted

NAMES = ("by", "since", "until", "clock", "at")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
E = TypeVar("E", bound=StrEnum)


class WrongWordError(ValueError):
    """What stands under *name* means nothing there."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def wanted_of(words: Mapping[str, str]) -> Wanted:
    """The report that *words* ask for; what is not told has its default.

    Raises:
        WrongWordError: one of them is none that its name takes, or the period ends before it begins.
    """
    since_us = _instant(words, "since", 0)
    until_us = _instant(words, "until", FOREVER_US)
    if since_us >= until_us:
        raise WrongWordError("until", "until must be later than since: a period ends before its until")
    return Wanted(
        by=_one_of(By, words, "by", By.ACCOUNT),
        clock=_one_of(Clock, words, "clock", Clock.EFFECTIVE),
        since_us=since_us,
        until_us=until_us,
        at=place_in(words),
    )


def clock_of(words: Mapping[str, str], *, default: Clock) -> Clock:
    """The clock that *words* tell.

    Raises:
        WrongWordError: there is no such clock.
    """
    return _one_of(Clock, words, "clock", default)


def place_in(words: Mapping[str, str]) -> str | None:
    """What `at` names, a date being its midnight; None: nothing."""
    at = words.get("at")
    return None if at is None else _midnight(at)


def period_of(words: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The bounds that *words* tell; None where they tell none.

    Raises:
        WrongWordError: as `wanted_of`.
    """
    told = {name: words[name] for name in ("since", "until") if name in words}
    wanted = wanted_of(told)
    return wanted.since_us if "since" in told else None, wanted.until_us if "until" in told else None


def _one_of(kind: type[E], words: Mapping[str, str], name: str, default: E) -> E:
    try:
        return kind(words.get(name, default))
    except ValueError:
        raise WrongWordError(name, f"{name} is one of {', '.join(kind)}") from None


def _instant(words: Mapping[str, str], name: str, default_us: int) -> int:
    """Microseconds of a time, or of a date alone: its midnight, UTC."""
    if name not in words:
        return default_us
    at_us = parse_rfc3339(_midnight(words[name]))
    if at_us is None:
        raise WrongWordError(name, f"{name} must be a date, or an RFC 3339 time such as 2026-01-02T03:04:05Z")
    return at_us


def _midnight(text: str) -> str:
    return f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text
