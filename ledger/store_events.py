"""What can happen to what is kept beside the log and folded from it."""

from ledger.event_base import Event


class ProjectionSwitched(Event, frozen=True, kw_only=True, tag="projection-switched"):
    """Rows that are folded from the log were replaced by others, in the same commit: by what a replay made of it.

    Whoever has such rows in memory reads them anew.
    """

    projection: str
    position: int
    """How far the log had been folded."""
    replaced: int
    """How many rows."""
    back: bool = False
    """They are those that an earlier switch had replaced."""
