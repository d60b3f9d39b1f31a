"""Names for requests that bring none: ``req_`` and a ULID, monotonic within a millisecond, as specified."""

from collections.abc import Callable

from ledger.ids import ulid

RANDOM_BYTES = 10
_RANDOM_MAX = 1 << 80


class RequestIds:
    """Request ids of one process. Entropy is asked for once a millisecond; within one, the next id is one more."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._at_ms = -1
        self._random = 0

    def next(self, at_us: int) -> str:
        """The id of a request that came at *at_us*."""
        at_ms = at_us // 1000
        if at_ms != self._at_ms:
            self._at_ms = at_ms
            self._random = int.from_bytes(self._entropy(RANDOM_BYTES), "big")
        else:
            self._random = (self._random + 1) % _RANDOM_MAX
        return "req_" + ulid((at_ms << 80 | self._random).to_bytes(16, "big"))
