"""What a row of the benchmark is, and what its rounds come to. Pure.

A machine is noisy and no two are alike, so a figure means little by itself. A row measures ours and a yardstick by
turns, A B A B, and what counts is the median of the rounds' ratios: neighbours in time share the machine's mood.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

BAND = 0.15
"""How far beyond its pass line a ratio may lie before the row fails."""


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    """Of load on each side, each round."""


class Pair(NamedTuple):
    """One round: our figure and the yardstick's."""

    ours: float
    yardstick: float


class Row(NamedTuple):
    """One measured promise."""

    name: str
    what: str
    """Ours / the yardstick."""
    unit: str
    pass_line: float
    goal: float
    measure: Callable[[Effort], Iterator[Pair]]
    """Sets up, yields a pair a round, and clears away."""
    more_is_better: bool = True


class Result(NamedTuple):
    """What a row came to: medians, and how far the ratios of its rounds lie apart."""

    row: Row
    ours: float
    yardstick: float
    ratio: float
    ratio_min: float
    ratio_max: float
    rounds: int

    @property
    def passed(self) -> bool:
        """Whether the ratio keeps the pass line, give or take the band."""
        if self.row.more_is_better:
            return self.ratio >= self.row.pass_line * (1 - BAND)
        return self.ratio <= self.row.pass_line * (1 + BAND)


def result(row: Row, pairs: Sequence[Pair]) -> Result:
    ratios = [pair.ours / pair.yardstick for pair in pairs]
    return Result(
        row=row,
        ours=median(pair.ours for pair in pairs),
        yardstick=median(pair.yardstick for pair in pairs),
        ratio=median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        rounds=len(pairs),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of *values* that at least *percent* of them do not exceed."""
    assert values
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]
