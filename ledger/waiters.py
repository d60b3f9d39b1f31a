"""A command on its way through the writer: who waits for its answer, and how often it has been decided."""

import asyncio

from ledger.batch import Answer, Replayed, Verdict, Written
from ledger.commands import TaskCommand
from ledger.errors import InsufficientCredits, StorageError, TooManyTasks
from ledger.records import Outcome

ATTEMPTS_MAX = 3
"""How often a command is decided again because another node appended to its task first."""
TERMS_ATTEMPTS_MAX = 100
"""How often because an account's terms were changed by another process: that says nothing against the command."""


class Waiter:
    """A command, and the answer that its caller waits for; one whose caller has left is answered already."""

    __slots__ = ("answer", "attempts", "command", "terms_attempts")

    def __init__(self, command: TaskCommand) -> None:
        self.command = command
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.attempts = self.terms_attempts = 1

    def settle(self, verdict: Verdict, position: int) -> None:
        """Answer as *verdict* says, which is durable by now and rests on *position* of the log."""
        if isinstance(verdict.refusal, TooManyTasks | InsufficientCredits):
            self.fail(verdict.refusal.at(position))
        elif verdict.refusal is not None:
            self.fail(verdict.refusal)
        elif self.answer.done():
            return
        elif verdict.replay is not None:
            self.answer.set_result(Replayed(claim=verdict.replay))
        else:
            assert verdict.task is not None
            written = Written(task=verdict.task, position=position, appended=verdict.appended, late=verdict.late)
            self.answer.set_result(written)

    def fail(self, error: Exception) -> None:
        """Answer with *error*: a refusal, a fault, or a bug."""
        fail(self.answer, error)

    def once_more(self, *, is_overtaken: bool) -> StorageError | None:
        """Count that it is to be decided again, because its task has moved on or else its account's terms have changed.

        What comes back is why it is given up instead; None: it may be decided once more.
        """
        if is_overtaken:
            self.attempts += 1
        else:
            self.terms_attempts += 1
        if self.attempts > ATTEMPTS_MAX:
            return StorageError("the task kept changing under the command")
        if self.terms_attempts > TERMS_ATTEMPTS_MAX:
            return StorageError("the account kept changing under the command")
        return None


def fail(answer: "asyncio.Future[Answer] | asyncio.Future[Outcome]", error: Exception) -> None:
    """Answer with *error*, unless the caller has left."""
    if not answer.done():
        answer.set_exception(error)
