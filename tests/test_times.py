"""Time is integer microseconds since 1970, UTC; its text is RFC 3339."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.times import parse_rfc3339, rfc3339

AT_US = 1_767_323_045_000_000  # 2026-01-02T03:04:05Z
LAST_US = 253_402_300_799_999_999

times = st.integers(0, LAST_US)


@pytest.mark.parametrize(
    ("at_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (AT_US, "2026-01-02T03:04:05Z"),
        (AT_US + 250_000, "2026-01-02T03:04:05.250000Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00Z"),
        (LAST_US, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_printed_in_utc_with_a_fraction_only_where_there_is_one(at_us: int, text: str) -> None:
    assert rfc3339(at_us) == text
    assert parse_rfc3339(text) == at_us


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("2026-01-02t03:04:05z", AT_US),
        ("2026-01-02T03:04:05+00:00", AT_US),
        ("2026-01-02T03:04:05-00:00", AT_US),
        ("2026-01-02T05:04:05+02:00", AT_US),
        ("2026-01-01T21:34:05-05:30", AT_US),
        ("2026-01-03T03:03:05+23:59", AT_US),
        ("2026-01-02T03:04:05.2Z", AT_US + 200_000),
        ("2026-01-02T03:04:05.250Z", AT_US + 250_000),
        ("2026-01-02T03:04:05.000001Z", AT_US + 1),
        ("2026-01-02T03:04:05.1234569Z", AT_US + 123_456),
        ("2026-01-02T03:04:05.123456999Z", AT_US + 123_456),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_every_way_of_rfc_3339_is_read(text: str, at_us: int) -> None:
    assert parse_rfc3339(text) == at_us


@given(times)
@settings(deadline=None)
def test_every_time_survives_its_text(at_us: int) -> None:
    assert parse_rfc3339(rfc3339(at_us)) == at_us


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis wants it naive
@settings(deadline=None)
def test_the_text_is_what_the_standard_library_prints(moment: datetime) -> None:
    at_us = parse_rfc3339(moment.isoformat())
    assert at_us is not None
    assert datetime.fromisoformat(rfc3339(at_us)) == moment


NO_TIMES = {
    "nothing": "",
    "a date alone": "2026-01-02",
    "no zone": "2026-01-02T03:04:05",
    "a blank for the T": "2026-01-02 03:04:05Z",
    "no seconds": "2026-01-02T03:04Z",
    "a point without a fraction": "2026-01-02T03:04:05.Z",
    "a comma": "2026-01-02T03:04:05,5Z",
    "ten decimals": "2026-01-02T03:04:05.1234567890Z",
    "a zone without minutes": "2026-01-02T03:04:05+02",
    "a zone without a colon": "2026-01-02T03:04:05+0200",
    "a zone of a day": "2026-01-02T03:04:05+24:00",
    "a zone of 99 minutes": "2026-01-02T03:04:05+01:99",
    "a zone by name": "2026-01-02T03:04:05 UTC",
    "month 13": "2026-13-02T03:04:05Z",
    "month 0": "2026-00-02T03:04:05Z",
    "30 February": "2026-02-30T03:04:05Z",
    "29 February of a common year": "2026-02-29T03:04:05Z",
    "hour 24": "2026-01-02T24:00:00Z",
    "minute 60": "2026-01-02T03:60:05Z",
    "a leap second": "2016-12-31T23:59:60Z",
    "year 0": "0000-01-01T00:00:00Z",
    "five digits of year": "12026-01-02T03:04:05Z",
    "a basic format": "20260102T030405Z",
    "a week date": "2026-W01-5T03:04:05Z",
    "before 1970": "1969-12-31T23:59:59.999999Z",
    "before 1970 by its zone": "1970-01-01T00:00:00+00:01",
    "after 9999 by its zone": "9999-12-31T23:59:59-00:01",
    "the first moment after 9999": "9999-12-31T23:59:00-00:01",
    "a newline after": "2026-01-02T03:04:05Z\n",
    "a blank before": " 2026-01-02T03:04:05Z",
    "arabic digits": "\u0662026-01-02T03:04:05Z",
    "a number": "1767323045",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=why) for why, text in NO_TIMES.items()])
def test_anything_else_is_no_time(text: str) -> None:
    assert parse_rfc3339(text) is None


LOOKS_RIGHT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"


@given(st.from_regex(LOOKS_RIGHT, fullmatch=True))
@settings(deadline=None)
def test_what_only_looks_like_a_time_never_makes_the_reader_stumble(text: str) -> None:
    at_us = parse_rfc3339(text)
    assert at_us is None or 0 <= at_us <= LAST_US
