"""Saying no. A `Refusal` is an answer; a `Fault` is something broken; a bug is an `assert`.

A refusal is named for its reason, carries the facts, and knows no HTTP: each contract words it in its own
table. A refusal may carry *evidence*: facts that the log keeps although the answer was no.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.money import credits_text

if TYPE_CHECKING:
    from ledger.events import TaskEvent
    from ledger.ids import TaskId
    from ledger.task import Status


class Refusal(Exception):
    """The answer is no, and nothing has changed but for the evidence, if there is any."""

    evidence: tuple["TaskEvent", ...] = ()


class TaskNotFound(Refusal):
    """No task that the caller may see has this id.

    Absent, deleted, and another account's are one outcome, found at one cost. *foreign* is for the one contract
    whose cancel must say 403 for another account's task, and thereby confesses that it exists.
    """

    def __init__(self, *, foreign: bool = False) -> None:
        super().__init__("no such task")
        self.foreign = foreign


class NotEnded(Refusal):
    """Only a task that is over can be followed by another one."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"a task that is {status} cannot be followed")
        self.status = status


class CancelUnsupported(Refusal):
    """The task's model cannot be cancelled at its provider; the wish itself is kept as evidence."""

    def __init__(self, model: str, evidence: tuple["TaskEvent", ...]) -> None:
        super().__init__(f"tasks of model {model} cannot be cancelled")
        self.model, self.evidence = model, evidence


class NotCancellable(Refusal):
    """The contract does not cancel a task in this status."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"a task that is {status} cannot be cancelled")
        self.status = status


class NotUpdatable(Refusal):
    """Only a task that completed or failed takes an update."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"a task that is {status} cannot be updated")
        self.status = status


class UpdateUnchanged(Refusal):
    """The update asks for the configuration that the task already has."""

    def __init__(self) -> None:
        super().__init__("the configuration is unchanged")


class NotDeletable(Refusal):
    """Only a task that is over can be deleted."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"a task that is {status} cannot be deleted")
        self.status = status


class CancelNotRequested(Refusal):
    """A worker confirmed a cancel that nobody had asked for."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"nobody asked to cancel this task; it is {status}")
        self.status = status


class AlreadyStarted(Refusal):
    """Another worker has this task."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"the task was started by {worker}")
        self.worker = worker


SETTLED_BY_MAX = 16
"""Movements that a refusal names: the last ones."""


class AmountExceeds(Refusal):
    """More than there is left to charge, give or take back; *settled_by* names the last movements that took it."""

    def __init__(self, what: str, *, asked_micros: int, left_micros: int, settled_by: tuple[str, ...]) -> None:
        super().__init__(f"{what}: {credits_text(asked_micros)} credits asked, {credits_text(left_micros)} left")
        self.what, self.asked_micros, self.left_micros = what, asked_micros, left_micros
        self.settled_by = settled_by[-SETTLED_BY_MAX:]


class KeyReused(Refusal):
    """A key came again with another request: the first had this *fingerprint*, or, where money moved, this amount."""

    def __init__(
        self,
        operation: str,
        key: str,
        *,
        task: "TaskId | None",
        fingerprint: str | None = None,
        amount_micros: int | None = None,
    ) -> None:
        super().__init__(f"{operation} key {key!r} was used for another request")
        self.operation, self.key, self.task = operation, key, task
        self.fingerprint, self.amount_micros = fingerprint, amount_micros


class WrongVersion(Refusal):
    """The task has moved on since the caller read it. Nothing was written: read again, decide again."""

    def __init__(self, *, expected: int, actual: int) -> None:
        super().__init__(f"expected version {expected}, found {actual}")
        self.expected, self.actual = expected, actual


class TooManyTasks(Refusal):
    """The account has as many tasks under way as it may have at once, as of *position* in the log.

    *position* is None until it is known. When a task will end is known to nobody, so *retry_after_seconds* is a guess.
    """

    retry_after_seconds = 5

    def __init__(self, *, live_tasks: int, tasks_max: int, position: int | None = None) -> None:
        self.live_tasks, self.tasks_max, self.position = live_tasks, tasks_max, position
        told = f"{live_tasks} tasks under way, {tasks_max} at once allowed"
        super().__init__(told if position is None else f"{told} as of position {position}")

    def at(self, position: int) -> "TooManyTasks":
        """The same, resting on *position*."""
        return TooManyTasks(live_tasks=self.live_tasks, tasks_max=self.tasks_max, position=position)


class InsufficientCredits(Refusal):
    """The account cannot bear what is asked: limit + granted - exposure is less, as of *position* in the log.

    *limit_micros* and *granted_micros* None: it has no such thing. *position* is None until that is known.
    """

    def __init__(
        self,
        *,
        asked_micros: int,
        limit_micros: int | None,
        granted_micros: int | None,
        exposure_micros: int,
        position: int | None = None,
    ) -> None:
        self.asked_micros, self.exposure_micros, self.position = asked_micros, exposure_micros, position
        self.limit_micros, self.granted_micros = limit_micros, granted_micros
        self.available_micros = (limit_micros or 0) + (granted_micros or 0) - exposure_micros
        told = f"{credits_text(asked_micros)} credits asked, {credits_text(self.available_micros)} available"
        super().__init__(told if position is None else f"{told} as of position {position}")

    def at(self, position: int) -> "InsufficientCredits":
        """The same, resting on *position*."""
        return InsufficientCredits(
            asked_micros=self.asked_micros,
            limit_micros=self.limit_micros,
            granted_micros=self.granted_micros,
            exposure_micros=self.exposure_micros,
            position=position,
        )


class UnknownModel(Refusal):
    """The catalogue has no such model in this contract."""

    def __init__(self, model: str) -> None:
        super().__init__(f"unknown model {model!r}")
        self.model = model


class DeadlinePassed(Refusal):
    """The task would have expired before it was created."""

    def __init__(self) -> None:
        super().__init__("expires_at has passed")


class UnknownKey(Refusal):
    """No API key has this id, or it has been revoked already."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no live key {key_id!r}")
        self.key_id = key_id


class UnknownBreak(Refusal):
    """No break has this id."""

    def __init__(self, break_id: str) -> None:
        super().__init__(f"no break {break_id!r}")
        self.break_id = break_id


class BreakClosed(Refusal):
    """The break has been corrected: nothing more is said about it."""

    def __init__(self, break_id: str) -> None:
        super().__init__(f"break {break_id} has been corrected already")
        self.break_id = break_id


class UnknownProvider(Refusal):
    """No task of the log and no catalogue or configuration knows a provider of this name."""

    SHOWN_MAX = 20

    def __init__(self, provider: str, known: Sequence[str]) -> None:
        some = ", ".join(known[: self.SHOWN_MAX]) or "none"
        more = f" and {len(known) - self.SHOWN_MAX} more" if len(known) > self.SHOWN_MAX else ""
        super().__init__(f"nobody knows a provider {provider!r}; known are {some}{more}")
        self.provider = provider


class NotReplaceable(Refusal):
    """The statement cannot be replaced by that one, for this reason."""

    def __init__(self, statement: str, reason: str) -> None:
        super().__init__(f"statement {statement} {reason}")
        self.statement = statement


class StatementSuperseded(Refusal):
    """The statement has been replaced: it is not read again."""

    def __init__(self, statement: str, by: str) -> None:
        super().__init__(f"statement {statement} has been replaced by {by}")
        self.statement, self.by = statement, by


class UnknownWebhook(Refusal):
    """The account has no webhook with this id."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"no webhook {webhook_id!r}")
        self.webhook_id = webhook_id


class TooManyWebhooks(Refusal):
    """The account has as many webhooks as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"an account has at most {most} webhooks")
        self.most = most


class UnknownCallback(Refusal):
    """No callback has this id."""

    def __init__(self, callback_id: str) -> None:
        super().__init__(f"no callback {callback_id!r}")
        self.callback_id = callback_id


class Overloaded(Refusal):
    """There is no room for more; nothing was taken in. Come back in *retry_after_seconds*."""

    def __init__(self, reason: str = "the write queue is full", *, retry_after_seconds: int) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Fault(Exception):
    """Something broke. Whoever was promised nothing yet is told so; nothing acknowledged is lost."""


class StorageError(Fault):
    """The store did not answer or did not take the commit: disk full, failing disk, lock not had. Safe to try again."""


class ReadOnlyError(StorageError):
    """The store is damaged and takes no writes until it has been restored. What can be read of it is served."""

    def __init__(self, damage: str) -> None:
        told = " ".join(damage.split())
        super().__init__(
            f"the store is damaged and read-only ({told}): run `task-ledger verify`, and then `task-ledger restore` "
            "with a backup, or with this file and --until the last position that is sound"
        )


class CannotOpenError(Fault):
    """The store cannot be opened: missing, foreign, newer than this program, or in use by another process."""


class DamagedError(Fault):
    """What was read from the log is not what was written."""
