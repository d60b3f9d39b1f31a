"""What a log was called before, held against the log itself: each earlier name claims to share its past up to a place.

A claim that does not fit makes cursors good that are not: whoever reads on from one misses events without a sign. What
cannot be seen is a name that was changed, or one that was left out, or the whole lineage: a log that was never restored
has none.
"""

from collections.abc import Sequence

from ledger.engine import Engine
from ledger.lineage import Ancestor
from projections.audit.findings import Check, Findings
from projections.facts import brief


async def misfits(engine: Engine, lineage: Sequence[Ancestor]) -> list[Ancestor]:
    """Those of *lineage* that claim a past which is not the one of this log. At 0 nothing is claimed."""
    return [one for one in lineage if one.position and not await _fits(engine, one)]


async def _fits(engine: Engine, one: Ancestor) -> bool:
    rows = await engine.after(one.position - 1, 1) if one.position > 0 else []
    return [(row.position, row.hash.hex()) for row in rows] == [(one.position, one.hash)]


def told(one: Ancestor) -> str:
    """What is wrong with a misfit."""
    return f"the log was called {one.log_id!r} up to position {one.position}, and there is another hash there, or none"


async def compare_lineage(engine: Engine, found: Findings) -> None:
    """Find each earlier name of the log that does not fit."""
    try:
        wrong = await misfits(engine, engine.lineage)
    except Exception as error:  # noqa: BLE001 - whatever damage makes an engine raise
        found.add(Check.LINEAGE, f"what the log was called before cannot be compared with it: {brief(error)}")
        return
    for one in wrong:
        found.add(Check.LINEAGE, told(one))
