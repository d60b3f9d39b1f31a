"""How long a running task may be silent before it is stalled, and since when anybody could have been heard. Pure.

Silence is measured against the time at which reports were recorded. A service that did not run, or whose clock jumped
ahead (a machine that slept, a clock that was set), or whose store took nothing, has heard nothing because it did not
listen: all patience begins anew then. A clock that is set back only makes the wait longer.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from ledger.times import US_PER_SECOND

SECONDS = 1800
JUMP_US = 60 * US_PER_SECOND
"""A clock that gains more than this on time as it passes has jumped."""

Seconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]


class Patience(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds without a report after which a running task is stalled."""

    seconds: Seconds = SECONDS
    of: Mapping[str, Seconds] = {}
    """By contract, or by contract and model (``lemondata/sora-2``), which beats its contract."""

    def us(self, contract: str, model: str) -> int:
        """Of a task of that model, in microseconds."""
        seconds = self.of.get(f"{contract}/{model}", self.of.get(contract, self.seconds))
        return seconds * US_PER_SECOND


class Listening(NamedTuple):
    """Since when reports could be heard without a break, as of a moment by both clocks."""

    since_us: int
    clock_us: int
    """What the clock on the wall said at the last look."""
    passed_us: int
    """And the one that only counts time as it passes."""

    def on(self, clock_us: int, passed_us: int) -> "Listening":
        """The same at a later look."""
        gained_us = (clock_us - self.clock_us) - (passed_us - self.passed_us)
        return Listening(clock_us if gained_us > JUMP_US else self.since_us, clock_us, passed_us)


def silent_before(listening: Listening, patience_us: int) -> int | None:
    """A task whose last report was recorded at this time or earlier is stalled; None: nobody has listened that long."""
    if listening.clock_us - listening.since_us < patience_us:
        return None
    return listening.clock_us - patience_us
