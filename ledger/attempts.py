"""Optimistic concurrency beside the writer: read a stream, decide, append; once more if somebody else was faster."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ledger.engine import Engine
from ledger.errors import StorageError
from ledger.records import Append, Outcome, Stale

ATTEMPTS_MAX = 20
"""How often a change is decided anew because another one came first: its turns are short."""

AppendOne: TypeAlias = Callable[[Append], Awaitable[Outcome]]
"""Commits an append, whole or not at all."""


def committing(engine: Engine) -> AppendOne:
    """An `AppendOne` that gives each append a commit of its own, for where there is no writer."""

    async def append_one(append: Append) -> Outcome:
        (outcome,) = await engine.commit([append])
        return outcome

    return append_one


async def append_decided(
    decide: Callable[[], Awaitable[Append | None]], append_one: AppendOne, *, what: str
) -> Append | None:
    """Append what *decide* comes to, decided again until it is in time; None: it came to nothing.

    Raises:
        StorageError: others kept changing *what*; and whatever *decide* raises.
    """
    for _ in range(ATTEMPTS_MAX):
        append = await decide()
        if append is None or not isinstance(await append_one(append), Stale):
            return append
    raise StorageError(f"others kept changing {what}")
