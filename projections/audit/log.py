"""The audit's first pass: the log in order, against its own chain, its head and the API keys that it gives.

The accounts' own events, and what providers bill, are handed on to their books.
"""

from ledger.break_log import NOBODY
from ledger.breaks import (
    Break,
    break_stream,
    break_violation,
    evolve_break,
    replaced_stream,
    statement_stream,
    switch_stream,
)
from ledger.callbacks import NOTHING_ARRANGED, Arranged, callback_violations, callbacks_stream, evolve_arranged
from ledger.chain import GENESIS
from ledger.engine import Engine
from ledger.events import (
    AccountEvent,
    AnyEvent,
    BookEvent,
    BreakCorrected,
    BreakExplained,
    BreakOpened,
    CallbackEvent,
    CostMoved,
    Created,
    KeyEvent,
    KeyIssued,
    KeyRevoked,
    ProjectionSwitched,
    StatementRead,
    StatementReplaced,
    amount_of,
    tag_of,
)
from ledger.keys import account_stream, evolve_key
from ledger.records import Head, KeyRow, Recorded
from ledger.statement_rules import replaced_violation
from ledger.streams import is_task_stream
from projections.audit.accounts import AccountBooks
from projections.audit.costs import CostBooks
from projections.audit.findings import Check, Findings, Meter, differences, link_of, log_pages, sound
from projections.audit.tree import TreeCheck
from projections.facts import brief

_LOWEST = -(2**63)


class LogPass:
    """Row after row; a broken row is told once, and the next one is held against what it left behind."""

    def __init__(self, head: Head | None, found: Findings, meter: Meter, books: AccountBooks, tree: TreeCheck) -> None:
        self.events = 0
        self.task_events = 0
        self.end = Head(lane=0 if head is None else head.lane, position=0, hash=GENESIS)
        """What the head should be, going by what has been read."""
        self._head, self._found, self._meter, self._books, self._tree = head, found, meter, books, tree
        self._costs = CostBooks(found)
        self._gap = False
        """Whether the row before the next one is not there to tell what its hash follows on."""
        self._keys: dict[str, tuple[KeyRow, int]] = {}
        self._versions: dict[bytes, int] = {}
        self._breaks: dict[bytes, Break] = {}
        self._read: set[bytes] = set()
        """The streams of the statements that were."""
        self._replaced: dict[str, dict[str, str]] = {}
        """By provider, as `Replaced`."""
        self._arranged: dict[bytes, Arranged] = {}

    async def read(self, engine: Engine) -> None:
        await self._look_before_the_first(engine)
        async for rows in log_pages(engine, self._found):
            for row in rows:
                self._row(row)
            await self.compare_costs(engine)
            self._meter.add(len(rows))
        if self._head is not None:
            self._compare_head(self._head)
        self._tree.compare(end=self.end.position)

    async def _look_before_the_first(self, engine: Engine) -> None:
        """Find an event at a position from which no reader begins; an engine without any answers what it likes."""
        try:
            rows = await engine.after(_LOWEST, 1)
        except Exception:  # noqa: BLE001 - what cannot be read is named when its turn comes
            return
        for row in rows:
            if row.position < 1:
                self._found.add(Check.POSITIONS, "an event stands before position 1", position=row.position)

    def _row(self, row: Recorded) -> None:
        self.events += 1
        self.task_events += is_task_stream(row.stream)
        self._chained(row)
        try:
            event = row.event
        except Exception as error:  # noqa: BLE001 - whatever damage makes a decoder raise
            self._found.add(Check.EVENT, f"cannot be decoded: {brief(error)}", position=row.position, task=row.stream)
            return
        self._agrees(row, event)
        self.beside(row, event)

    def beside(self, row: Recorded, event: AnyEvent) -> None:
        """Check an event that is no task's, and fold it."""
        if isinstance(event, AccountEvent):
            self._account(row, event)
        elif isinstance(event, CallbackEvent):
            self._callbacks(row, event)
        elif isinstance(event, BookEvent):
            self._book(row, event)
        elif isinstance(event, ProjectionSwitched):
            self._next_version(row, "the stream of switches")
            if row.stream != switch_stream() or row.account != NOBODY:
                detail = f"{tag_of(event)} does not stand in the stream of switches"
                self._found.add(Check.HISTORY, detail, position=row.position)

    def _chained(self, row: Recorded) -> None:
        """Check that the row has the next position, and the hash that its bytes give after the row before it."""
        end, position = self.end, row.position
        if position != end.position + 1:
            self._missing(Check.POSITIONS, first=end.position + 1, last=position - 1)
            self._gap = True
        if not self._gap and link_of(end.hash, row) != row.hash:
            detail = "the hash is not the one that this row gives after the row before it"
            self._found.add(Check.CHAIN, detail, position=position, task=row.stream)
        if self._head is not None and position > self._head.position:
            detail = f"lies beyond the head, which stands at {self._head.position}"
            self._found.add(Check.HEAD, detail, position=position, task=row.stream)
        self._tree.add(position, row.hash)
        recorded_at_us = max(end.recorded_at_us, row.entry.recorded_at_us)
        self.end = Head(lane=end.lane, position=position, hash=row.hash, recorded_at_us=recorded_at_us)
        self._gap = False

    def _agrees(self, row: Recorded, event: AnyEvent) -> None:
        """Check the columns that repeat what the event says."""
        said: list[tuple[str, object, object]] = [
            ("type", row.entry.type, tag_of(event)),
            ("amount_micros", row.entry.amount_micros, amount_of(event)),
            ("effective_at", row.entry.effective_at_us, event.at_us),
        ]
        if isinstance(event, Created):
            said.append(("account", row.account, event.account))
        for column, stands, says in said:
            if stands != says:
                detail = f"{column} is {stands!r}, the event says {says!r}"
                self._found.add(Check.EVENT, detail, position=row.position, task=row.stream)

    def _account(self, row: Recorded, event: AccountEvent) -> None:
        """Check that the event belongs where it stands, and fold it."""
        self._next_version(row, f"account {row.account!r}")
        is_key = isinstance(event, KeyIssued | KeyRevoked)
        if row.stream != account_stream(row.account):
            check = Check.KEYS if is_key else Check.ACCOUNTS
            self._found.add(check, f"not in the stream of account {row.account!r}", position=row.position)
        if isinstance(event, KeyIssued | KeyRevoked):
            self._key(row, event)
        else:
            self._books.credit(row, event)

    def _key(self, row: Recorded, event: KeyEvent) -> None:
        key, _ = self._keys.get(event.key_id, (None, 0))
        if isinstance(event, KeyIssued) is (key is None):
            self._keys[event.key_id] = evolve_key(key, event, account=row.account), row.position
        else:
            detail = f"{tag_of(event)} of key {event.key_id!r}, which {'was' if key else 'was never'} issued before"
            self._found.add(Check.KEYS, detail, position=row.position)

    def _callbacks(self, row: Recorded, event: CallbackEvent) -> None:
        """Check that the event stands in its account's stream and follows from what stands before it, and fold it."""
        self._next_version(row, f"the callbacks of account {row.account!r}")
        arranged = self._arranged.get(row.stream, NOTHING_ARRANGED)
        if row.stream != callbacks_stream(row.account):
            detail = f"{tag_of(event)} does not stand in the stream of account {row.account!r}"
            self._found.add(Check.CALLBACKS, detail, position=row.position)
        for detail in callback_violations(arranged, event):
            self._found.add(Check.CALLBACKS, detail, position=row.position)
        self._arranged[row.stream] = evolve_arranged(arranged, event)

    def _next_version(self, row: Recorded, whose: str) -> None:
        before = self._versions.get(row.stream, 0)
        self._versions[row.stream] = row.version
        if row.version != before + 1:
            detail = f"version {row.version} of {whose} follows {before}"
            self._found.add(Check.VERSIONS, detail, position=row.position)

    def _book(self, row: Recorded, event: BookEvent) -> None:
        """Check that the event stands in the stream that its facts name, and fold it."""
        self._next_version(row, f"the stream of a {tag_of(event)}")
        if isinstance(event, StatementRead):
            stream: bytes | None = self._was_read(row, event)
        elif isinstance(event, StatementReplaced):
            stream = self._was_replaced(row, event)
        elif isinstance(event, CostMoved):
            stream = self._costs.take(row, event)
        else:
            stream = break_stream(event.break_id)
            self._break(row, event)
        if row.stream != stream or row.account != NOBODY:
            detail = f"{tag_of(event)} does not stand in the stream that its facts name"
            check = Check.COSTS if isinstance(event, CostMoved) else Check.BREAKS
            self._found.add(check, detail, position=row.position)

    def _was_read(self, row: Recorded, event: StatementRead) -> bytes:
        """Check that the statement was not read before, and fold it; the stream in which that stands."""
        stream = statement_stream(event.provider, event.statement)
        if stream in self._read:
            self._found.add(Check.COSTS, f"{tag_of(event)} of a statement that was read before", position=row.position)
        self._read.add(stream)
        return stream

    def _was_replaced(self, row: Recorded, event: StatementReplaced) -> bytes:
        """Check that the statement could be replaced by the other one, and fold it; the stream in which that stands."""
        replaced = self._replaced.setdefault(event.provider, {})
        is_read = statement_stream(event.provider, event.statement) in self._read
        problem = replaced_violation(replaced, event, is_read=is_read)
        if problem is not None:
            self._found.add(Check.COSTS, problem, position=row.position)
        replaced[event.statement] = event.by
        return replaced_stream(event.provider)

    def _break(self, row: Recorded, event: BreakOpened | BreakExplained | BreakCorrected) -> None:
        known = self._breaks.get(row.stream)
        problem = break_violation(known, event)
        if problem is not None:
            self._found.add(Check.BREAKS, problem, position=row.position)
        if isinstance(event, BreakOpened) is (known is None):
            self._breaks[row.stream] = evolve_break(known, event)

    def _compare_head(self, head: Head) -> None:
        if self.end.position < head.position:
            self._missing(Check.HEAD, first=self.end.position + 1, last=head.position)
        elif self.end.position == head.position:
            for detail in differences("the head", head, self.end):
                self._found.add(Check.HEAD, detail, position=head.position)

    def _missing(self, check: Check, *, first: int, last: int) -> None:
        if all(position in self._found.unreadable for position in range(first, last + 1)):
            return  # named already
        span = f"position {first} is" if first == last else f"positions {first} to {last} are"
        self._found.add(check, f"{span} missing", position=first)

    async def compare_costs(self, engine: Engine) -> None:
        """Check the tasks that were billed since this was done last."""
        await self._costs.compare(engine)

    async def compare_keys(self, engine: Engine) -> None:
        """Compare the API keys with the fold of their events."""
        try:
            rows = {row.key_id: row for row in sound(await engine.keys(None), list[KeyRow])}
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            self._found.add(Check.UNREADABLE, f"the API keys cannot be read: {brief(error)}")
            return
        for key_id, (wanted, position) in self._keys.items():
            for detail in differences(f"key {key_id!r}", rows.pop(key_id, None), wanted):
                self._found.add(Check.KEYS, detail, position=position)
        for key_id in rows:
            self._found.add(Check.KEYS, f"key {key_id!r}: no event issued it")
