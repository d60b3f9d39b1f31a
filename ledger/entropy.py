"""Random bytes of the operating system, drawn a pool at a time."""

import os

POOL_BYTES = 4096


class Entropy:
    """Gives out random bytes from a pool: asking the system each time is a call that may cost our turn."""

    def __init__(self) -> None:
        self._pool, self._used = b"", 0

    def __call__(self, count: int) -> bytes:
        """*count* bytes, at most `POOL_BYTES`, that nobody had before."""
        assert count <= POOL_BYTES
        if self._used + count > len(self._pool):
            self._pool, self._used = os.urandom(POOL_BYTES), 0
        self._used += count
        return self._pool[self._used - count : self._used]
