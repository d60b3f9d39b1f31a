"""A cache of answered GETs: a poll of a task that has not changed is answered again without looking it up.

Customers poll; nearly all requests repeat an earlier one. What a GET came to is remembered by all that its answer rests
on: path, host and credentials as they were sent. It stands as long as its key opens, the vendor keeps the task, and
the task in memory is the very one that was shown: a commit or an eviction puts another there, and the answer is gone.
Finding the row, the key and the task anew took 16 us in a hot loop: about half of what was ours in such a GET then.
"""

import weakref
from collections.abc import Hashable
from typing import NamedTuple

from api.contracts.shape import Answer, Contract
from ledger.keyring import Keyring
from ledger.records import KeyRow
from ledger.views import Seen, Views

REPEATS_MAX = 16_384
"""When there are more, all are forgotten and remembered anew."""


class Repeat(NamedTuple):
    """What answers a GET again: the task that it showed, and where with that task the answer itself is kept."""

    seen: "weakref.ref[Seen]"
    variant: Hashable
    contract: Contract
    route: str
    key_id: str


class Again(NamedTuple):
    """A repeat that still stands."""

    contract: Contract
    route: str
    key: KeyRow
    answer: Answer


class Repeats:
    """Answered GETs, by path, host and credentials."""

    def __init__(self, keys: Keyring, views: Views) -> None:
        self._keys, self._views = keys, views
        self._repeats: dict[tuple[str, str, bytes], Repeat] = {}

    def again(self, path: str, host: str, mark: bytes, now_us: int) -> Again | None:
        """What the same GET was answered, *mark* being its credentials', if that still stands; None: look it up."""
        repeat = self._repeats.get((path, host, mark))
        if repeat is None:
            return None
        seen_ref, variant, contract, route, key_id = repeat
        seen = seen_ref()
        if seen is None or self._views.cached(seen.task.task_id) is not seen:
            return None
        key = self._keys.known(key_id, at_us=now_us)
        if key is None or contract.gone(seen.task, now_us):
            return None
        answer = seen.answers.get(variant)
        return None if answer is None else Again(contract, route, key, answer)

    def remember(self, path: str, host: str, mark: bytes, repeat: Repeat) -> None:
        """Answer the same GET in this way from now on."""
        if len(self._repeats) >= REPEATS_MAX:
            self._repeats.clear()
        self._repeats[path, host, mark] = repeat
