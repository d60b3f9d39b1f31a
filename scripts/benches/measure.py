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


class Figure(NamedTuple):
    """What one side of one round came to."""

    value: float
    busy: float = 0.0
    """The share of the time in which the load generator was at work; near 1 it measured itself."""
    beside: float | None = None
    """What else was answered meanwhile, a second: a figure may look good because others were kept waiting."""


class Pair(NamedTuple):
    """One round."""

    ours: Figure
    yardstick: Figure


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
    minutes: bool = False
    """It takes minutes to set up, and is measured when it is asked for by name."""


class Result(NamedTuple):
    """What a row came to: medians, and how far apart the ratios of its rounds lie."""

    row: Row
    rounds: int
    ours: float
    yardstick: float
    ratio: float
    ratio_min: float
    ratio_max: float
    busy: float
    beside: float | None

    @property
    def passed(self) -> bool:
        """Whether the ratio keeps the pass line, give or take the band."""
        if self.row.more_is_better:
            return self.ratio >= self.row.pass_line * (1 - BAND)
        return self.ratio <= self.row.pass_line * (1 + BAND)


def by_turns(effort: Effort, ours: Callable[[], Figure], yardstick: Callable[[], Figure]) -> Iterator[Pair]:
    """A round of each that does not count, for caches and kernels to warm up, and then those that do."""
    ours(), yardstick()
    for _ in range(effort.rounds):
        yield Pair(ours(), yardstick())


def result(row: Row, pairs: Sequence[Pair]) -> Result:
    ratios = [pair.ours.value / pair.yardstick.value for pair in pairs]
    beside = [pair.ours.beside for pair in pairs if pair.ours.beside is not None]
    return Result(
        row=row,
        rounds=len(pairs),
        ours=median(pair.ours.value for pair in pairs),
        yardstick=median(pair.yardstick.value for pair in pairs),
        ratio=median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        busy=max(figure.busy for pair in pairs for figure in pair),
        beside=median(beside) if beside else None,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of *values* that *percent* of them do not exceed."""
    assert values
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]
