"""Chunkr's words: a status, a message for it, and what it refuses in a text of its own.

Source: the open-source server (lumina-ai-inc/chunkr) and its generated API docs.
"""

from api.refusals import Invalid
from ledger.task import Status

STATUSES = {
    Status.QUEUED: "Starting",
    Status.RUNNING: "Processing",
    Status.COMPLETED: "Succeeded",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Cancelled",
    Status.EXPIRED: "Failed",
}
MESSAGES = {
    Status.QUEUED: "Task queued",
    Status.RUNNING: "Task started",
    Status.COMPLETED: "Task succeeded",
    Status.FAILED: "Task failed",
    Status.CANCELLED: "Task cancelled",
    Status.EXPIRED: "Task timed out",
}


class Unfit(Invalid):
    """A request that the vendor refuses in words of its own: the *reason* is the whole text."""
