"""When tasks arrive: by the hour of the day and by the day of the week, as those who work and those who play order."""

from itertools import accumulate
from random import Random

from ledger.times import US_PER_DAY, US_PER_HOUR

BY_HOUR = (4, 3, 2, 2, 2, 3, 5, 8, 13, 17, 19, 19, 16, 17, 19, 19, 18, 17, 16, 17, 18, 16, 11, 7)
"""Shares of the hours of a day, UTC."""
BY_WEEKDAY = (18, 20, 20, 19, 17, 9, 10)
"""Shares of the days of a week, Monday first."""
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""


def arrivals(dice: Random, *, tasks: int, since_us: int, days: int) -> list[int]:
    """When each of *tasks* tasks arrives, in order, within *days* days from midnight *since_us*."""
    first = since_us // US_PER_DAY + EPOCH_WEEKDAY
    shares = accumulate(BY_WEEKDAY[(first + day) % 7] * share for day in range(days) for share in BY_HOUR)
    hours = dice.choices(range(days * 24), cum_weights=list(shares), k=tasks)
    return sorted(since_us + hour * US_PER_HOUR + dice.randrange(US_PER_HOUR) for hour in hours)
