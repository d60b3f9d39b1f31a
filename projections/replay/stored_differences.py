"""A difference as a replay's file stores it: what content it has, sealed under its task's own key.

That key lies in the ledger only: whoever deletes the task erases its content here as well. Of a task that has been
deleted the live row's view is not kept at all.
"""

from collections.abc import Callable

import msgspec

from ledger.seals import NONCE_BYTES, seal, unseal
from ledger.sqlite_sql import TASK_COLUMNS
from projections.replay.ranges import Difference
from projections.replay.task_pages import Row

VIEW = TASK_COLUMNS.index("view")


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A difference: its views are sealed, if there is a key."""

    live: Row | None
    fresh: Row | None
    problem: str | None
    is_sealed: bool
    is_erased: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def stored(one: Difference, *, entropy: Callable[[int], bytes]) -> bytes:
    """The difference as `opened` reads it; *entropy* draws so many bytes."""
    live, fresh = (_sealed(row, one, entropy) for row in (one.live, one.fresh))
    if live is not None and one.is_erased:
        live = (*live[:VIEW], b"", *live[VIEW + 1 :])
    return _encode(_Stored(live, fresh, one.problem, one.key is not None, one.is_erased))


def opened(task: bytes, raw: bytes, key: bytes | None) -> Difference:
    """A difference as it was found; without its rows, if its task has been deleted since.

    Raises:
        DamagedError: it was sealed under another key.
    """
    one = _decode(raw)
    if one.is_sealed and key is None:
        return Difference(task=task, live=None, fresh=None, problem="deleted since", is_erased=True)
    live, fresh = (_unsealed(row, task, key) if one.is_sealed and key else row for row in (one.live, one.fresh))
    return Difference(task=task, live=live, fresh=fresh, problem=one.problem, key=key, is_erased=one.is_erased)


def opened_fresh(task: bytes, raw: bytes, key: bytes | None) -> tuple[Row | None, bool]:
    """The fresh row of a difference, and whether the events give one at all; the live row stays sealed."""
    one = _decode(raw)
    if one.problem is not None or (one.is_sealed and key is None):
        return None, False
    return (_unsealed(one.fresh, task, key) if one.is_sealed and key else one.fresh), True


def _sealed(row: Row | None, one: Difference, entropy: Callable[[int], bytes]) -> Row | None:
    if row is None or one.key is None:
        return row
    sealed = seal(row[VIEW], key=one.key, nonce=entropy(NONCE_BYTES), stream=one.task, version=0)
    return (*row[:VIEW], sealed, *row[VIEW + 1 :])


def _unsealed(row: Row | None, task: bytes, key: bytes) -> Row | None:
    if row is None:
        return None
    return (*row[:VIEW], unseal(row[VIEW], key=key, stream=task, version=0), *row[VIEW + 1 :])
