"""What ``scripts/up`` prints: lines of shell that try every contract with curl. Pure.

They can be pasted line by line, or as a whole, comments and all. A line that creates keeps the task's id in a variable
of the contract's name, and the lines below it use that.
"""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import msgspec

from scripts.demo.worker import Habits


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


def account_of(demo: Demo) -> str:
    """Whose task it is."""
    return f"demo-{demo.contract}"


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
        f"# {name}: account {account_of(demo)}, key {key}",
        f"# {demo.note}",
        _create(access, demo),
        _curl(access.url, name, demo.query, authorization),
        f"# wait here to see it run and be done; or cancel the {name} task while it waits in the queue:",
        _curl(access.url, name, demo.cancel, authorization),
    ]


def _create(access: Access, demo: Demo) -> str:
    """A native create, for which the operator's key is good; the customer's own id of the task stays in the shell."""
    body = msgspec.json.encode({"account": account_of(demo), "contract": demo.contract, **demo.task}).decode()
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
