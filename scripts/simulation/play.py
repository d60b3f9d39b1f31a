"""Playing a history to a ledger: many commands under way at a time, each decided by the real rules."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from ledger.batch import Answer, Replayed
from ledger.commands import Create, TaskCommand
from ledger.engine import Engine
from ledger.errors import Refusal
from ledger.ledger import Ledger
from scripts.simulation import dice_for
from scripts.simulation.history import Setting

UNDER_WAY_MAX = 8192
"""Commands that are handed over together. The ledger's queue must hold as many."""
BATCH_MAX = 1024
"""Commands of one commit. With 256 and with 4096 it took as long, to within what one run differs from the next."""


def ledger_over(engine: Engine, setting: Setting, *, batch_max: int = BATCH_MAX) -> Ledger:
    """A ledger that draws its lots from the seed, so that the same seed seals alike: there are no secrets in it."""
    lots = dice_for(setting.seed, "lots").randbytes
    return Ledger(engine, entropy=lots, queue_max=UNDER_WAY_MAX, batch_max=batch_max)


class Played(msgspec.Struct, kw_only=True):
    """What became of the commands of a history."""

    commands: int = 0
    replayed: int = 0
    """Answered with the first answer to the same request."""
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    """How often, by the name of the refusal."""
    providers: Counter[str] = msgspec.field(default_factory=Counter)
    """How many tasks were created for each."""


async def play(ledger: Ledger, told: Iterable[TaskCommand], *, made: Callable[[int], None]) -> Played:
    """Have *ledger* decide all that is *told*, in this order; *made* hears from time to time how many tasks there are.

    Raises:
        StorageError: the store did not take a commit.
    """
    played, commands = Played(), iter(told)
    while some := list(islice(commands, UNDER_WAY_MAX)):
        answers = await asyncio.gather(*map(ledger.writer.submit, some), return_exceptions=True)
        for command, answer in zip(some, answers, strict=True):
            _count(played, command, answer)
        made(played.providers.total())
    return played


def _count(played: Played, command: TaskCommand, answer: Answer | BaseException) -> None:
    played.commands += 1
    match answer:
        case Refusal():
            played.refused[type(answer).__name__] += 1
        case BaseException():
            raise answer
        case Replayed():
            played.replayed += 1
        case _:
            if isinstance(command, Create):
                played.providers[command.provider] += 1
