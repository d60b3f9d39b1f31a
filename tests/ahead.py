"""``python -m tests.ahead SECONDS [forgetful] ...``: the server, by a clock that is so far ahead.

A *forgetful* one posts what comes in while it runs and knows nothing of what came before: as a queue in memory would.
"""

import os
import sys
from pathlib import Path

from api import app, callbacks
from ledger.engine import Engine
from projections.callbacks import queue as callback_queue
from projections.callbacks.queue import CallbackQueue, Plan
from projections.follow import Checkpoint
from projections.side_file import MOVE_ON
from scripts.cli import run_alone
from scripts.serve import serve


async def in_memory(path: Path, engine: Engine, plan: Plan) -> CallbackQueue:
    """A queue that begins at the end of the log, whatever was in it."""
    queue = await callback_queue.open_queue(path.with_name(f"{os.getpid()}"), engine, plan)
    head = await engine.head()
    async with queue._turn, queue._transaction():
        await queue._file.execute(MOVE_ON, (*Checkpoint(head.position, head.hash), 0))
    return queue


def main() -> None:
    seconds, clock = int(sys.argv.pop(1)), app.clock
    app.clock = lambda: clock() + seconds * 1_000_000
    if sys.argv[1] == "forgetful":
        sys.argv.pop(1)
        vars(callbacks)["open_queue"] = in_memory
    run_alone(serve)


if __name__ == "__main__":
    main()
