"""Metrics as they are counted: plain integers, for counting must cost next to nothing; `api.metrics` words them."""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """How many values there were up to each bound, and their sum."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = tuple(bounds)
        """Ascending."""
        self.total = 0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: int) -> None:
        """Count one more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def cumulated(self) -> list[int]:
        """How many there were up to each bound, and last how many in all."""
        counts, so_far = [], 0
        for count in self._counts:
            so_far += count
            counts.append(so_far)
        return counts


class CommitFigures:
    """The commits of a writer: how long each took, in microseconds, and for how many commands it was."""

    __slots__ = ("commands", "took_us")

    def __init__(self) -> None:
        self.took_us = Histogram([250 * 2**power for power in range(15)])  # up to four seconds
        self.commands = Histogram([2**power for power in range(10)])
