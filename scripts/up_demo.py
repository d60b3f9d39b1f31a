"""``scripts/up``: the service with demo accounts and a demo worker, and lines of curl to try every contract with.

All of it is one process, so nothing is left behind however it ends. The worker still asks over HTTP.

What is printed on stdout is shell, comments and all: it can be pasted line by line, or as a whole. A line that creates
keeps the task's id in a variable of the contract's name, and the lines below it use that.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
import uvloop

from api import logs
from api.app import clock, service
from api.settings import Settings
from ledger.keys import Role
from ledger.ledger import Ledger
from ledger.sqlite import open_to_serve
from scripts.listening import listen, local_url
from scripts.stores import DEFAULT, StoreOption, path_of, pepper, real_path
from scripts.work import PACE_MAX_SECONDS
from scripts.worker import Habits, KeyRefused, RequestRefused, Worker, open_session

DELAY_PACES = 5
"""How long a task stays queued, in steps of the worker: time enough to paste a cancel."""


class Demo(NamedTuple):
    """What is tried with one contract: a task to create, and the customer's request to query and to cancel it.

    ``{id}`` stands for the shell variable with the task's id.
    """

    contract: str
    task: dict[str, object]
    query: "Request"
    cancel: "Request"
    note: str
    auth: str = "Bearer {key}"


class Request(NamedTuple):
    method: str
    path: str
    body: str | None = None
    headers: Sequence[str] = ()


DEMOS = (
    Demo(
        "lemondata",
        {"model": "seedance-2.0", "input": {"prompt": "A lemon tree in the wind"}},
        Request("GET", "/v1/tasks/{id}"),
        Request("DELETE", "/v1/tasks/{id}"),
        "only a queued task cancels, and reads as failed then",
    ),
    Demo(
        "bytespike",
        {"model": "veo-3.1", "input": {"prompt": "A kettle that whistles a tune"}},
        Request("POST", "/v1/tasks/query", '{"task_id":"{id}"}'),
        Request("POST", "/v1/tasks/cancel/{id}"),
        "a running task cancels too, and past a tenth of the way is charged for what was rendered",
    ),
    Demo(
        "chunkr",
        {"model": "chunkr-parse", "input": {"file": "https://files.example.test/in.pdf"}},
        Request("GET", "/api/v1/task/{id}"),
        Request("GET", "/api/v1/task/{id}/cancel"),
        "only a task that is Starting cancels",
        auth="{key}",
    ),
    Demo(
        "beatra",
        {"model": "suno-5.5", "input": {"prompt": "A waltz for two typewriters"}},
        Request("GET", "/v1/tasks/{id}"),
        Request("POST", "/v1/tasks/{id}/cancel", '{"reason":"changed my mind"}', ("Idempotency-Key: demo",)),
        "a running task is asked to stop, and the worker confirms at its next step",
    ),
)


class Access(NamedTuple):
    """Where the service is, and the keys to it."""

    url: str
    operator: str
    worker: str
    clients: dict[str, str]
    """By contract."""


def up_demo(
    *,
    store: StoreOption = DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8080,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Whether tasks are taken off the queue.")] = True,
    pace: Annotated[
        float,
        typer.Option(
            min=0.01, max=PACE_MAX_SECONDS, metavar="SECONDS", help="The worker's step; a task is taken after five."
        ),
    ] = 2.0,
) -> None:
    """Start the ledger with demo accounts and a demo worker; print keys and curl lines."""
    path = path_of(store)
    habits = Habits(name="demo-worker", pace_seconds=pace, delay_seconds=DELAY_PACES * pace, concurrency=16)
    with listen(host, port) as listener:
        _only_troubles()
        uvloop.run(_up(path, listener, habits if worker else None))


def _only_troubles() -> None:
    """Log warnings and worse to stderr: a line for each request would bury the lines of curl."""
    logs.configure(sys.stderr, logs.Format.CONSOLE, only_warnings=True)


async def _up(path: Path, listener: socket.socket, habits: Habits | None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _served(path, listener) as ledger, open_session() as session:
        access = await _issue(ledger, local_url(listener))
        print("\n".join(page(access, path, habits)), flush=True)
        running: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
        if habits is not None:
            running.append(asyncio.create_task(_work(Worker(session, access.url, access.worker, habits), stop)))
        done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


async def _work(worker: Worker, stop: asyncio.Event) -> None:
    """The demo worker at work; without it, as when its key is revoked, the service goes on."""
    try:
        await worker.run()
    except (KeyRefused, RequestRefused) as refused:
        print(f"the demo worker has stopped: {refused}", file=sys.stderr)
    await stop.wait()


@asynccontextmanager
async def _served(path: Path, listener: socket.socket) -> AsyncIterator[Ledger]:
    """The ledger at *path*, served on *listener*."""
    settings = Settings()
    async with (
        Ledger(await open_to_serve(path), pepper=pepper()) as ledger,
        service(ledger, settings, settings.models(), store=real_path(path), listener=listener),
    ):
        yield ledger


async def _issue(ledger: Ledger, url: str) -> Access:
    """New keys: what a store keeps of the old ones cannot be shown again."""

    async def issue(account: str, contract: str, role: Role) -> str:
        new = await ledger.keys.issue(account=account, contract=contract, role=role, by="scripts/up", at_us=clock())
        return new.key

    return Access(
        url=url,
        operator=await issue("demo", "ledger", Role.OPERATOR),
        worker=await issue("demo", "ledger", Role.WORKER),
        clients={demo.contract: await issue(_account(demo), demo.contract, Role.CLIENT) for demo in DEMOS},
    )


def _account(demo: Demo) -> str:
    return f"demo-{demo.contract}"


# What is printed


def page(access: Access, path: Path, habits: Habits | None) -> list[str]:
    """Lines of shell that try every contract."""
    return [
        f"# Task Ledger at {access.url}, store {path}. Paste these lines into another terminal, with curl.",
        f"# operator key {access.operator}",
        f"# worker key {access.worker}",
        "# These keys are new at each start; the old ones stay good until they are revoked.",
        f"# {_pace(habits, access)}",
        *(line for demo in DEMOS for line in _lines(access, demo)),
        "",
        "# Ctrl-C here stops everything; the store stays.",
    ]


def _pace(habits: Habits | None, access: Access) -> str:
    if habits is None:
        command = f".venv/bin/task-ledger work --url {access.url} --key {access.worker}"
        return f"Tasks stay queued until a worker runs: {command}"
    return (
        f"The demo worker takes a task after {habits.delay_seconds:g} s in the queue, "
        f"and reports on it every {habits.pace_seconds:g} s."
    )


def _lines(access: Access, demo: Demo) -> list[str]:
    name, key = demo.contract, access.clients[demo.contract]
    authorization = f"Authorization: {demo.auth.format(key=key)}"
    return [
        "",
        f"# {name}: account {_account(demo)}, key {key}",
        f"# {demo.note}",
        _create(access, demo),
        _curl(access.url, name, demo.query, authorization),
        f"# wait here to see it run and be done; or cancel the {name} task while it waits in the queue:",
        _curl(access.url, name, demo.cancel, authorization),
    ]


def _create(access: Access, demo: Demo) -> str:
    """A native create, for which the operator's key is good; the customer's own id of the task stays in the shell."""
    body = msgspec.json.encode({"account": _account(demo), "contract": demo.contract, **demo.task}).decode()
    request = Request("POST", "/ledger/v1/tasks", body)
    created = _curl(access.url, demo.contract, request, f"Authorization: Bearer {access.operator}")
    public_id = """sed -n 's/.*"public_id":"\\([^"]*\\)".*/\\1/p'"""
    return f'{demo.contract}=$({created} | {public_id}); echo "created ${demo.contract}"'


def _curl(url: str, name: str, request: Request, authorization: str) -> str:
    """One line for any POSIX shell. The answer ends in a new line, so that the prompt does not stick to it."""
    words = ["curl", "-sS", "-w", quote("\\n"), "-X", request.method, _word(url + request.path, name)]
    for header in (authorization, *request.headers):
        words += ["-H", quote(header)]
    if request.body is not None:
        words += ["-H", quote("Content-Type: application/json"), "-d", _word(request.body, name)]
    return " ".join(words)


def _word(text: str, name: str) -> str:
    """*text* quoted for the shell, its ``{id}`` the variable."""
    if "{id}" not in text:
        return quote(text)
    assert not set(text) & set("$`\\!"), "nothing else in it means anything to a shell"
    return '"' + text.replace('"', '\\"').replace("{id}", f"${name}") + '"'


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(up_demo, program="scripts/up")
