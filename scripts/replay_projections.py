"""What `task-ledger replay` folds, and in how many processes."""

import os
from enum import StrEnum

WORKERS_MAX = 2
"""More were not measured: the reading of one file is what they share."""


class Projection(StrEnum):
    """What is folded from the log and kept."""

    TASKS = "tasks"
    ACCOUNTS = "accounts"
    BOOKS = "books"


def workers() -> int:
    """How many fold at once."""
    return min(WORKERS_MAX, os.cpu_count() or 1)
