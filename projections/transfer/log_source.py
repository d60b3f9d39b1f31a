"""An export, read line by line: each line held against those before it, and the whole against its end. Pure.

An event is the next one of its lane and has the hash that its bytes give, a claim comes after the one before it by its
id, and the last line says how many there are of each. So whatever was changed, left out, added, or put elsewhere is
told with the number of its line, and before anything that follows it is used.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator

from ledger.chain import GENESIS, Place, link
from ledger.lineage import Ancestor, descended
from ledger.records import ClaimId, ClaimRow, Recorded
from projections.transfer.log_lines import (
    FORMAT,
    ClaimLine,
    EndLine,
    EventLine,
    Line,
    LogLine,
    claim_row,
    decode,
    recorded,
)

PAGE = 1000


class BadExport(Exception):
    """The file is not what an export has written."""


class Export:
    """An export while it is read."""

    log: LogLine
    """There once the first line has been read."""
    end: EndLine
    """There once all have been read."""

    def __init__(self, texts: Iterator[bytes]) -> None:
        self._texts = texts
        self._number = self._events = self._claims = 0
        self._hashes: dict[int, bytes] = defaultdict(lambda: GENESIS)
        self._positions: dict[int, int] = defaultdict(int)
        self._claimed: ClaimId | None = None

    def lineage(self, *, same: bool) -> tuple[Ancestor, ...]:
        """Whose log it was; where it has other positions now, none of them is shared."""
        if same:
            return descended(self.log.lineage, log_id=self.log.log_id, position=self.end.position, end=self.end.hash)
        return (Ancestor(log_id=self.log.log_id, position=0, hash=self.end.hash),)

    def pages(self) -> Iterator[list[Recorded] | list[ClaimRow]]:
        """The events and then the claims, in pages; at the end they have been found whole.

        Raises:
            BadExport: this is not what an export has written.
        """
        events: list[Recorded] = []
        claims: list[ClaimRow] = []
        for line in self._lines():
            match line:
                case EventLine():
                    events.append(self._event(line))
                case ClaimLine():
                    claims.append(self._claim(line))
                case _:
                    raise self._bad("a log begins in the middle of another")
            if len(events) >= PAGE or (events and claims):
                yield events
                events = []
            if len(claims) >= PAGE:
                yield claims
                claims = []
        if events:
            yield events
        if claims:
            yield claims

    def _lines(self) -> Iterator[Line]:
        first = self._line()
        if not isinstance(first, LogLine):
            raise self._bad("no export of a log begins so")
        if first.format != FORMAT:
            raise self._bad(f"an export of format {first.format}, this program reads {FORMAT}")
        if first.after:
            raise self._bad(f"an export that begins after position {first.after}: an import needs all of the log")
        self.log = first
        while (line := self._line()) is not None:
            if isinstance(line, EndLine):
                self._ended(line)
                if next(self._texts, None) is not None:
                    raise self._bad("the export ends here, and the file goes on")
                return
            yield line
        raise self._bad("the file was cut short: the line that ends an export is not there")

    def _line(self) -> Line | None:
        text = next(self._texts, None)
        if text is None:
            return None
        self._number += 1
        try:
            return decode(text)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error

    def _event(self, line: EventLine) -> Recorded:
        """The event, which is the next one of its lane and has the hash that its bytes give."""
        if self._claimed is not None:
            raise self._bad("an event follows the claims, which are of all events")
        try:
            row = recorded(line)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error
        self._events += 1
        if row.position != self._positions[row.lane] + 1:
            raise self._bad(f"position {row.position} follows {self._positions[row.lane]}")
        place = Place(row.lane, row.position, row.stream, row.version, row.account)
        try:
            wanted = link(self._hashes[row.lane], place, row.entry)
        except (struct.error, OverflowError) as error:
            raise self._bad(f"cannot be read: {error}") from error
        if wanted != row.hash:
            raise self._bad(f"the event at position {row.position} is not what was written: it has another hash")
        self._hashes[row.lane], self._positions[row.lane] = row.hash, row.position
        return row

    def _claim(self, line: ClaimLine) -> ClaimRow:
        """The claim, which comes after the one before by its id: so that each is there once."""
        self._claims += 1
        try:
            row = claim_row(line)
        except ValueError as error:
            raise self._bad(f"cannot be read: {error}") from error
        if self._claimed is not None and row.id <= self._claimed:
            raise self._bad("a claim stands before the one before it, or a second time")
        self._claimed = row.id
        return row

    def _ended(self, line: EndLine) -> None:
        if (line.events, line.claims) != (self._events, self._claims):
            raise self._bad(
                f"{line.events} events and {line.claims} claims told, {self._events} and {self._claims} seen"
            )
        if line.events and line.hash not in {one.hex() for one in self._hashes.values()}:
            raise self._bad("the log ends with another event than was exported")
        self.end = line

    def _bad(self, what: str) -> BadExport:
        return BadExport(f"line {self._number}: {what}")
