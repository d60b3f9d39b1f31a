"""Names for requests that bring none: ``req_`` and a ULID, monotonic within a millisecond, as specified."""

from collections.abc import Callable

from ledger.ids import PAIRS, ulid

RANDOM_BYTES = 10
_TIMES = 1 << 20
"""Ids that share their random bits: the last 20 of the 80 are counted, in four characters."""
_COUNTED_CHARS = 4


class RequestIds:
    """Request ids of one process. The text is made anew once a millisecond; within one, its end is counted up."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._at_ms = -1
        self._random = b""
        self._fixed = ""
        self._next = _TIMES

    def next(self, at_us: int) -> str:
        """The id of a request that came at *at_us*."""
        at_ms = at_us // 1000
        if self._next == _TIMES:
            self._random, self._next, self._at_ms = self._entropy(RANDOM_BYTES), 0, -1
        if at_ms != self._at_ms:
            self._at_ms = at_ms
            self._fixed = "req_" + ulid(at_ms.to_bytes(6, "big") + self._random)[:-_COUNTED_CHARS]
        number = self._next
        self._next = number + 1
        return self._fixed + PAIRS[number >> 10] + PAIRS[number & 1023]
