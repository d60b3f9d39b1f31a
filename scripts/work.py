"""`task-ledger work`: the demo worker, which makes up the results of the tasks that it takes off the queue."""

import asyncio
import math
import secrets
import signal
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

import typer

from ledger.keys import parse
from scripts.demo.plan import View
from scripts.demo.worker import Habits, KeyRefused, RequestRefused, Worker, open_session
from scripts.printed import JsonOption, json_line

CONCURRENCY_MAX = 64
NAME_MAX_CHARS = 128
PACE_MAX_SECONDS = 3600


def work(
    *,
    key: Annotated[str, typer.Option(envvar="TASK_LEDGER_KEY", metavar="KEY", help="A worker's or operator's key.")],
    url: Annotated[str, typer.Option(metavar="URL", help="Where the ledger serves.")] = "http://127.0.0.1:8080",
    name: Annotated[str, typer.Option(help="Whose work it is; no two workers share a name.")] = "demo-worker",
    pace: Annotated[float, typer.Option(min=0, max=PACE_MAX_SECONDS, metavar="SECONDS", help="Between reports.")] = 2.0,
    delay: Annotated[
        float, typer.Option(min=0, max=PACE_MAX_SECONDS, metavar="SECONDS", help="Leave a task queued this long.")
    ] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1, max=CONCURRENCY_MAX, help="Tasks at a time.")] = 4,
    fail_share: Annotated[float, typer.Option(min=0, max=1, help="How many of the tasks fail.")] = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same of a task.", show_default=False)
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N tasks; else never.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop after one task.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take queued tasks and carry them through: a worker to try the ledger with."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise typer.BadParameter("must be an http or https address", param_hint="'--url'")
    if parse(key) is None:
        raise typer.BadParameter("this is no key of a ledger, perhaps it is mistyped", param_hint="'--key'")
    if not 1 <= len(name) <= NAME_MAX_CHARS or not name.isascii() or not name.isprintable() or " " in name:
        raise typer.BadParameter("must be 1 to 128 visible ASCII characters", param_hint="'--name'")
    if not all(map(math.isfinite, (pace, delay, fail_share))):
        raise typer.BadParameter("must be a number", param_hint="'--pace', '--delay', '--fail-share'")
    if once and count not in (None, 1):
        raise typer.BadParameter("is --count 1, it does not go with another count", param_hint="'--once'")
    habits = Habits(
        name=name,
        pace_seconds=pace,
        delay_seconds=delay,
        concurrency=concurrency,
        fail_share=fail_share,
        seed=secrets.randbits(32) if seed is None else seed,
    )
    try:
        asyncio.run(_work(url, key, habits, count=1 if once else count, tell=_print_json if as_json else _print))
    except KeyRefused as refused:
        raise typer.BadParameter(f"the ledger does not take it: {refused}", param_hint="'--key'") from None
    except RequestRefused as refused:
        raise typer.BadParameter(f"no tasks are to be had there: {refused}", param_hint="'--url'") from None


async def _work(url: str, key: str, habits: Habits, *, count: int | None, tell: Callable[[View, str], None]) -> None:
    """Until it is done, or SIGTERM or Ctrl-C ends it; the ledger keeps what was reported."""
    me = asyncio.current_task()
    assert me is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    try:
        async with open_session() as session:
            await Worker(session, url, key, habits, tell=tell).run(count)
    except asyncio.CancelledError:
        return


def _print(task: View, became: str) -> None:
    print(f"{task.id} {task.contract} {task.model}: {became}", flush=True)


def _print_json(task: View, became: str) -> None:
    json_line({"task": task.id, "contract": task.contract, "model": task.model, "became": became})
    print(end="", flush=True)


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(work)
