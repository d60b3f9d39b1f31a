"""The log read as a Merkle tree: for a checkpoint of it, and for proofs against one.

The log is read once, page by page, whatever is wanted of it, and every row is held against the chain on the way: what
is signed or shown is what the rows give, and not what stands in their hash column. Memory is a page, the edge of the
tree, and what is asked for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.merkle import Reading, Span, Tree, consistency_spans, inclusion_spans
from ledger.notes import Checkpoint, checkpoint_in
from ledger.proofs import Proof, ProvenEvent, shown
from ledger.records import Recorded
from projections.audit.findings import link_of
from projections.follow import PAGE, Progress, nobody


class NotThisLogError(Exception):
    """The log is not the one that a checkpoint was taken of, or does not extend it."""


See: TypeAlias = Callable[[bytes, Recorded], None]
"""Told of every row, and the link before it."""


async def tree_of(engine: Engine, *, extends: Checkpoint | None = None, progress: Progress = nobody) -> Tree:
    """The tree of the whole log, as it is now.

    Raises:
        NotThisLogError: it does not extend that checkpoint.
        DamagedError: it is not the log that was written.
    """
    head = await engine.head()
    known = [] if extends is None else [extends]
    reading = await _read(engine, head.position, _whole(known, end=head.position), progress=progress)
    for one in known:
        _same(one, reading)
    return Tree(reading.size, reading.root)


async def prove(
    engine: Engine,
    note: str,
    *,
    positions: Iterable[int] = (),
    earlier: str | None = None,
    progress: Progress = nobody,
) -> Proof:
    """The proof against the checkpoint *note* of the events at these positions, and that it extends *earlier*.

    Raises:
        NoteError: one of them is no checkpoint.
        NotThisLogError: the log does not extend one of them, or an event stands beyond the checkpoint.
        DamagedError: the log is not the one that was written.
    """
    checkpoint, before = checkpoint_in(note), None if earlier is None else checkpoint_in(earlier)
    size, wanted = checkpoint.tree.size, sorted(set(positions))
    _order(checkpoint, before, wanted)
    head = await engine.head()
    known = [checkpoint] if before is None else [checkpoint, before]
    paths = {position: inclusion_spans(position - 1, size) for position in wanted}
    growth = [] if before is None else consistency_spans(before.tree.size, size)
    spans = [*_whole(known, end=head.position), *growth, *(span for path in paths.values() for span in path)]
    seen: dict[int, tuple[bytes, Recorded]] = {}

    def see(previous: bytes, row: Recorded) -> None:
        if row.position in paths:
            seen[row.position] = previous, row

    reading = await _read(engine, size, spans, see=see, progress=progress)
    for one in known:
        _same(one, reading)

    def event(position: int) -> ProvenEvent:
        previous, row = seen[position]
        return shown(row, previous=previous, path=[reading.hash_of(span) for span in paths[position]])

    return Proof(
        checkpoint=note,
        events=tuple(map(event, wanted)),
        earlier=earlier,
        consistency=tuple(map(reading.hash_of, growth)),
    )


def _order(checkpoint: Checkpoint, before: Checkpoint | None, positions: Sequence[int]) -> None:
    """Refuse what no log could prove."""
    size = checkpoint.tree.size
    if before is not None and before.origin != checkpoint.origin:
        raise NotThisLogError(f"the checkpoints are of two logs, {before.origin} and {checkpoint.origin}")
    if before is not None and before.tree.size > size:
        raise NotThisLogError(f"the earlier checkpoint has size {before.tree.size}, the later one {size}")
    if positions and positions[-1] > size:
        raise NotThisLogError(f"position {positions[-1]} lies beyond the checkpoint, which has size {size}")


def _whole(known: Sequence[Checkpoint], *, end: int) -> list[Span]:
    """The spans of these checkpoints' trees in a log of *end* events."""
    for one in known:
        if one.tree.size > end:
            raise NotThisLogError(f"the log ends at {end}, and the checkpoint is of one of size {one.tree.size}")
    return [Span(0, one.tree.size) for one in known]


def _same(one: Checkpoint, reading: Reading) -> None:
    size, root = one.tree
    if reading.hash_of(Span(0, size)) != root:
        raise NotThisLogError(f"the log up to {size} is not the one that the checkpoint of size {size} was taken of")


def _unseen(_previous: bytes, _row: Recorded) -> None:
    """Nobody looks."""


async def _read(
    engine: Engine, until: int, wanted: Iterable[Span], *, see: See = _unseen, progress: Progress = nobody
) -> Reading:
    """The tree of the log up to position *until*."""
    reading, previous = Reading(wanted), GENESIS
    while reading.size < until:
        rows = await engine.after(reading.size, min(PAGE, until - reading.size))
        if not rows:
            raise _damaged(reading.size + 1)
        for row in rows:
            if row.position != reading.size + 1 or link_of(previous, row) != row.hash:
                raise _damaged(reading.size + 1)
            see(previous, row)
            reading.add(row.hash)
            previous = row.hash
        progress(reading.size, until)
    return reading


def _damaged(position: int) -> DamagedError:
    return DamagedError(f"the log is broken at position {position}: run `task-ledger verify`")
