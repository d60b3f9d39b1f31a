"""One batch: commands decided one after the other, each against the state that the ones before it left.

Nothing here waits or reads: what the commands need has been learned before, and what they append is committed by
others. A batch may be decided on top of another that is not written yet; whether it stands is asked again when it is
known what became of that one.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from ledger.claims import Claims, FirstAnswer, claim_row, claimed
from ledger.commands import Claim, Create, NewWork, TaskCommand
from ledger.credit import move_of
from ledger.errors import InsufficientCredits, KeyReused, Refusal, TooManyTasks
from ledger.events import LateReported, TaskEvent
from ledger.ids import TaskId
from ledger.records import Append, ClaimId, ClaimRow, Entry, Outcome, Stale, entry
from ledger.rules import decide, may_follow
from ledger.seals import KEY_BYTES, NONCE_BYTES, seal
from ledger.settlement import violations
from ledger.tally import Places, Tally
from ledger.task import NO_TASK, Task, evolve
from ledger.views import Seen, row_of

Positions: TypeAlias = dict[TaskId, int]
Entropy: TypeAlias = Callable[[int], bytes]


class Written(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The command's effect is durable, and this is the task after it."""

    task: Task
    position: int
    appended: bool
    """Whether anything changed."""
    late: bool
    """Whether it was a report after the outcome, kept as evidence."""


class Replayed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The command's idempotency key came before, with the same request; *claim* tells where the first answer is."""

    claim: ClaimRow


Answer: TypeAlias = Written | Replayed


class Verdict(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a command comes to once its batch is durable: a task, an earlier answer, or a refusal."""

    task: Task | None = None
    rests_on: int | None = None
    """The last append of this batch to its task; None: it rests on nothing new."""
    moved_by: int | None = None
    """The last of them that has events."""
    appended: bool = False
    late: bool = False
    replay: ClaimRow | None = None
    refusal: Exception | None = None
    """A `Refusal`, or the bug that the command met."""
    short: str | None = None
    """The account that had too little credit, or no room for one more task."""
    short_since: int | None = None
    """The last append of this batch to move that account; None: it rests on nothing new."""
    short_version: int | None = None
    """The version of the account's terms that it was refused by, for want of credit; None: for want of room."""


class Asker(Protocol):
    """Whoever brings a command."""

    @property
    def command(self) -> TaskCommand: ...


A = TypeVar("A", bound=Asker)


class After(NamedTuple):
    """Where the tasks and the accounts stand that a batch has moved."""

    tasks: Positions
    accounts: Places


class Batch(Generic[A]):
    """Commands decided one after the other, each against the state that the ones before it left."""

    def __init__(self, *, recorded_at_us: int, entropy: Entropy) -> None:
        self.waiters: list[A] = []
        self.verdicts: list[Verdict] = []
        self.appends: list[Append] = []
        self.states: dict[TaskId, Task] = {}
        self.accounts = Tally()
        self.seal_keys: dict[TaskId, bytes] = {}
        """Of the states, what their payloads are sealed under, if there is any that has not been erased."""
        self.recorded_at_us = recorded_at_us
        self._entropy = entropy
        self._positions: Positions = {}
        self._claims = Claims({})
        self._last: dict[TaskId, int] = {}
        self._moved: dict[TaskId, int] = {}

    def successor(self) -> "Batch[A]":
        """An empty batch on top of this one, before it is known where in the log that is."""
        after: Batch[A] = Batch(recorded_at_us=self.recorded_at_us, entropy=self._entropy)
        after.states = {task: self.states[task] for task in self._moved}
        after.accounts = self.accounts.successor()
        after.seal_keys = {task: self.seal_keys[task] for task in self._moved if task in self.seal_keys}
        after._claims = Claims({claim.id: claim for append in self.appends for claim in append.claims})
        return after

    def rest_on(self, before: "After") -> None:
        """Take in where the batch before, which has been written, has left tasks and accounts."""
        self._positions |= before.tasks
        self.accounts.rest_on(before.accounts)

    def learn(self, seen: Sequence[Seen], claims: dict[ClaimId, ClaimRow]) -> None:
        """Take in what has been read; what has been decided since is newer."""
        for one in seen:
            if one.task.task_id not in self.states:
                self.states[one.task.task_id] = one.task
                self._positions[one.task.task_id] = one.position
                if one.seal_key is not None:
                    self.seal_keys[one.task.task_id] = one.seal_key
        self._claims.learn(claims)

    def account_of(self, command: TaskCommand) -> str:
        """The account that the command is about; of a task that is not there, nobody's."""
        if isinstance(command, Create):
            return command.account
        task = self.states.get(command.task_id)
        return "" if task is None else task.account

    def decide(self, waiter: A, *, for_good: bool = False) -> bool:
        """Decide the waiter's command, and put what it appends into the batch.

        False: it lacks credit, by terms that may have been changed; without *for_good* it is not in the batch then.
        """
        try:
            verdict = self._verdict(waiter.command)
        except Exception as bug:  # noqa: BLE001 - a command that meets a bug fails alone
            verdict = Verdict(refusal=bug)
        if verdict.short_version is not None and not for_good:
            return False
        self.waiters.append(waiter)
        self.verdicts.append(verdict)
        return True

    def _verdict(self, command: TaskCommand) -> Verdict:
        try:
            replay = self._claims.first_answer(command)
        except KeyReused as refusal:
            return Verdict(refusal=refusal, rests_on=None if refusal.task is None else self._last.get(refusal.task))
        if replay is not None:
            self._bind(command, replay)
            return Verdict(replay=replay, rests_on=self._last.get(replay.task_id))
        task = self.states.get(command.task_id) or replace(NO_TASK, task_id=command.task_id)
        followed = command.follows if isinstance(command, Create) else None
        try:
            if isinstance(command, Create) and followed is not None:
                may_follow(self.states.get(followed, NO_TASK), command)
            events = decide(task, command)
            after = self._append(task, command, events, claims=command.claims)
        except (TooManyTasks, InsufficientCredits) as refusal:
            account = self.account_of(command)
            since, version = self.accounts.moved_by(account), self.accounts.version(account)
            by_terms = version if isinstance(refusal, InsufficientCredits) else None
            return Verdict(refusal=refusal, short=account, short_since=since, short_version=by_terms)
        except Refusal as refusal:
            self._append(task, command, refusal.evidence, claims=())
            return Verdict(refusal=refusal, rests_on=self._last.get(followed or command.task_id))
        return Verdict(
            task=after,
            rests_on=self._last.get(command.task_id),
            moved_by=self._moved.get(command.task_id),
            appended=bool(events),
            late=is_late(events),
        )

    def position(self, verdict: Verdict, outcomes: Sequence[Outcome]) -> int | None:
        """Where in the log what the verdict is about stands; None when what it rests on was not written."""
        if verdict.short is not None:
            return self.accounts.place(verdict.short, moved_by=verdict.short_since, outcomes=outcomes)
        if verdict.rests_on is not None and isinstance(outcomes[verdict.rests_on], Stale):
            return None
        if verdict.moved_by is not None:
            outcome = outcomes[verdict.moved_by]
            assert not isinstance(outcome, Stale), "what follows a stale append is stale"
            return outcome
        return 0 if verdict.task is None else self._positions.get(verdict.task.task_id, 0)

    def is_unsure(self, verdict: Verdict, position: int) -> bool:
        """Whether it refuses for want of credit as of *position*, and terms that may have changed before that."""
        if verdict.short is None or verdict.short_version is None:
            return False
        return not self.accounts.terms_stood_at(verdict.short, position)

    def is_overtaken(self, verdict: Verdict, outcomes: Sequence[Outcome]) -> bool:
        """Whether what the verdict rests on was not written because the task has moved on.

        Otherwise it was its account's terms, or, under a refusal that the account caused, another command of the batch.
        """
        if verdict.rests_on is None:
            return False
        outcome = outcomes[verdict.rests_on]
        return isinstance(outcome, Stale) and outcome.actual != self.appends[verdict.rests_on].expected

    def after(self, outcomes: Sequence[Outcome]) -> "After | None":
        """Where what it moved stands in the log; None when a part of it was not written."""
        places = [outcome for outcome in outcomes if not isinstance(outcome, Stale)]
        if len(places) < len(outcomes):
            return None
        return After({task: places[last] for task, last in self._moved.items()}, self.accounts.places(outcomes))

    def _bind(self, command: TaskCommand, replay: ClaimRow) -> None:
        """Let further keys of a repeated request stand for its first answer too: they are not for another one."""
        task, further = self.states.get(replay.task_id), self._claims.free(command)
        if task is None or not further:
            return
        rows = tuple(claim_row(claim, replay, at_us=command.at_us) for claim in further)
        self._claims.put(rows)
        self._last[task.task_id] = len(self.appends)
        self.appends.append(
            Append(stream=task.task_id, account=task.account, expected=task.version, entries=(), claims=rows)
        )

    def _append(
        self, task: Task, command: TaskCommand, events: Sequence[TaskEvent], *, claims: Sequence[Claim]
    ) -> Task:
        if not events and not claims:
            return task
        after = reduce(evolve, events, task)
        assert not violations(after), violations(after)
        move, new = move_of(task, after), command if isinstance(command, NewWork) else None
        account = None if move is None else self.accounts.after(after.account, move, new=new)
        answer = FirstAnswer(task.task_id, after.version, bool(events))
        rows = tuple(claim_row(claim, answer, at_us=command.at_us) for claim in claims)
        if events and claims:
            events = [replace(events[0], claims=tuple(map(claimed, claims))), *events[1:]]
        recorded_at_us = max(self.recorded_at_us, command.at_us)
        entries, seal_key = self._entries(task, command, events, recorded_at_us=recorded_at_us)
        append = Append(
            stream=task.task_id,
            account=after.account,
            expected=task.version,
            entries=entries,
            task=row_of(after) if events else None,
            claims=rows,
            seal_key=None if task.task_id in self.seal_keys else seal_key,
            move=move,
            rests_on=account.version if account is not None and new is not None else None,
        )
        # From here on nothing can go wrong: a command is in the batch whole or not at all.
        self.recorded_at_us = recorded_at_us
        self.states[task.task_id] = after
        if after.deleted:
            self.seal_keys.pop(task.task_id, None)
        elif seal_key is not None:
            self.seal_keys[task.task_id] = seal_key
        self._claims.put(rows)
        self._last[task.task_id] = len(self.appends)
        if events:
            self._moved[task.task_id] = len(self.appends)
        if account is not None:
            self.accounts.put(account, by=len(self.appends))
        self.appends.append(append)
        return after

    def _entries(
        self, task: Task, command: TaskCommand, events: Sequence[TaskEvent], *, recorded_at_us: int
    ) -> tuple[tuple[Entry, ...], bytes | None]:
        """The events as they are written, and the key that seals the task's content: a new one for the first of it."""
        entries = [
            entry(event, actor=command.actor, request_id=command.request_id, recorded_at_us=recorded_at_us)
            for event in events
        ]
        seal_key = self.seal_keys.get(task.task_id)
        if any(one.payload is not None for one in entries):
            assert not task.deleted, "no content after its deletion"
            seal_key = seal_key or self._entropy(KEY_BYTES)
            return tuple(_sealed(entries, task, seal_key, self._entropy)), seal_key
        return tuple(entries), seal_key


def _sealed(entries: Iterable[Entry], task: Task, key: bytes, entropy: Entropy) -> Iterable[Entry]:
    """What is appended to *task*, ready to be written."""
    for version, one in enumerate(entries, start=task.version + 1):
        if one.payload is None:
            yield one
        else:
            nonce = entropy(NONCE_BYTES)
            yield replace(one, payload=seal(one.payload, key=key, nonce=nonce, stream=task.task_id, version=version))


def is_late(events: Sequence[TaskEvent]) -> bool:
    """Whether these are what a report after the outcome leaves behind."""
    return bool(events) and isinstance(events[-1], LateReported)
