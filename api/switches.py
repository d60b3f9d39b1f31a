"""Heeding switches: what a replay has replaced in the store is read anew by the service, within two seconds.

Nothing is decided on what was replaced even before that: the switch is in the log, and the first commit after it finds
the log moved on and all that was decided stale. This is for those who only read. A replay is another process, of which
no commit here tells, so it is the runner's look without news that finds it: one look-up by key.
"""

from api.followers import Duty
from ledger.ledger import Ledger

REST_SECONDS = 1.0


def heeding(ledger: Ledger) -> Duty:
    """How the service has *ledger* heed switches."""

    async def heed() -> int:
        position = ledger.engine.end.position
        await ledger.heed_switches()
        return position

    return Duty("switches", heed, REST_SECONDS)
