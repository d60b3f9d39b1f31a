"""``python -m tests.dying_caller MOMENT ...``: the server, which kills itself at that moment of its first callback.

``posted``: the receiver has answered, and nothing is on record. ``recorded``: the try is, and the queue does not know.
``queued``: the queue has written it down, and not committed.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from api.callback_tries import Tries
from projections.callbacks.queue import CallbackQueue
from scripts.cli import run_alone
from scripts.serve import serve

MOMENTS = {"posted": (Tries, "post"), "recorded": (Tries, "record"), "queued": (CallbackQueue, "_attempted")}


def dies_after(plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def dying(*args: Any, **options: Any) -> None:  # noqa: ANN401 - whatever it takes
        await plain(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


def main() -> None:
    owner, name = MOMENTS[sys.argv.pop(1)]
    setattr(owner, name, dies_after(getattr(owner, name)))
    run_alone(serve)


if __name__ == "__main__":
    main()
