"""The audit against checkpoints: what was signed of the log, and kept where whoever changed the log could not reach."""

from collections.abc import Sequence

from ledger.merkle import Reading, Span
from ledger.notes import Checkpoint
from projections.audit.findings import Check, Findings


class TreeCheck:
    """The tree of the log as it is read, and the checkpoints that it should have passed through."""

    def __init__(self, checkpoints: Sequence[Checkpoint], found: Findings) -> None:
        self._wanted = sorted((one.tree for one in checkpoints), key=lambda tree: tree.size)
        self._reading = Reading(Span(0, tree.size) for tree in self._wanted)
        self._until = self._wanted[-1].size if self._wanted else 0
        self._found = found

    def add(self, position: int, link: bytes) -> None:
        """Add the row that is read next. After a hole there is no tree any more."""
        if position == self._reading.size + 1 <= self._until:
            self._reading.add(link)

    def compare(self, *, end: int) -> None:
        """Hold the checkpoints against the log, which ends at *end*."""
        read, holds = self._reading.size, 0
        for size, root in self._wanted:
            if size > end:
                detail = f"the log ends at {end}, and a checkpoint is of size {size}: its end has been cut off"
                self._found.add(Check.CHECKPOINT, detail, position=end + 1)
            elif size > read:
                detail = f"the checkpoint of size {size} cannot be compared: position {read + 1} is missing"
                self._found.add(Check.CHECKPOINT, detail, position=read + 1)
            elif self._reading.hash_of(Span(0, size)) != root:
                detail = f"not the log of the checkpoint of size {size}: it was changed after {holds}, and up to {size}"
                self._found.add(Check.CHECKPOINT, detail, position=size)
            else:
                holds = size
