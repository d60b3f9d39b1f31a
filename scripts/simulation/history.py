"""The whole history: every task's life, all of them in one order of time.

Lives are drawn as their tasks arrive, and what they hold waits in a heap until it is its turn, so that memory holds
the tasks under way and not the history. Each task has dice of its own, and equal times are told in the order of the
tasks: the same seed gives the same commands, one by one.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from ledger.catalogue import Catalogue
from ledger.commands import TaskCommand
from scripts.simulation import dice_for
from scripts.simulation.arrivals import arrivals
from scripts.simulation.jobs import job
from scripts.simulation.lives import life
from scripts.simulation.market import Portion, key_id, market


class Setting(NamedTuple):
    """What a history is of."""

    seed: int
    tasks: int
    accounts: int
    since_us: int
    """Midnight of the first day, UTC."""
    days: int
    portion: Portion | None = None


def history(setting: Setting, catalogue: Catalogue) -> Iterator[TaskCommand]:
    """All that is asked of the ledger and reported to it, in order of time."""
    dice = dice_for(setting.seed, "market")
    marketplace = market(catalogue, dice, accounts=setting.accounts, portion=setting.portion)
    worker_key = key_id(dice)
    times = arrivals(
        dice_for(setting.seed, "arrivals"), tasks=setting.tasks, since_us=setting.since_us, days=setting.days
    )
    waiting: list[tuple[int, int, int, TaskCommand]] = []
    for number, at_us in enumerate(times, start=1):
        while waiting and waiting[0][0] < at_us:
            yield heappop(waiting)[-1]
        own = dice_for(setting.seed, "task", number)
        ordered = job(own, number=number, at_us=at_us, who=marketplace.order(own), worker_key=worker_key)
        for step, command in enumerate(life(ordered, own)):
            heappush(waiting, (command.at_us, number, step, command))
    while waiting:
        yield heappop(waiting)[-1]
