"""`task-ledger <verb>`: the operator's command line. A verb is a module of this package and a line below.

Exit codes: 0 fine, 1 the check found something, 2 wrong use, 3 the ledger cannot be opened or read. What is expected
to go wrong is said in one line on stderr; a traceback is always a bug.
"""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from ledger.errors import Fault, Refusal, UnknownBreak, UnknownCallback, UnknownKey
from ledger.sqlite_codes import is_of_disk

VERBS = (
    *("serve", "keys", "accounts", "tail", "trace", "explain", "verify", "checkpoint", "prove", "replay"),
    *("report", "reconcile", "breaks", "callbacks", "backup", "restore", "drill", "export", "import"),
    *("work", "simulate", "bench"),
)
"""Each a module of this package with a function of its name, or with an `app` if it has verbs of its own."""

PROGRAM = "task-ledger"
PARSERS_WORDS = "Value error, "
"""What typer puts before its reason when a value is none of a choice."""
EXIT_USAGE, EXIT_STORE = 2, 3
EXIT_PIPE, EXIT_INTERRUPT = 128 + 13, 128 + 2  # as of a process that ended by SIGPIPE, SIGINT


class _Verbs(TyperGroup):
    """The verbs, each imported when it is asked for: the service alone doubles what `keys list` takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer keeps this type to itself
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit(EXIT_USAGE)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - the same
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - the same
        if cmd_name not in VERBS:
            return None
        module = import_module(f"scripts.{cmd_name}")
        return get_command(_alone(getattr(module, "app", None) or getattr(module, cmd_name)))


def _alone(verb: Callable[..., None] | typer.Typer) -> typer.Typer:
    """The verb as a program of its own."""
    if isinstance(verb, typer.Typer):
        return verb
    program = typer.Typer(add_completion=False)
    program.command()(verb)
    return program


app = typer.Typer(name=PROGRAM, cls=_Verbs, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _program() -> None:
    """A ledger for asynchronous tasks and their money."""


def main() -> None:
    """Carry out the command line and end the process."""
    _clear_away_when_terminated()
    sys.exit(run(app, sys.argv[1:]))


def run_alone(verb: Callable[..., None] | typer.Typer, *, program: str | None = None) -> None:
    """As `main`, for ``python -m scripts.VERB``; *program* is what it is called by, if not ``task-ledger VERB``."""
    _clear_away_when_terminated()
    name = verb.info.name if isinstance(verb, typer.Typer) else verb.__name__
    sys.exit(run(_alone(verb), sys.argv[1:], program=program or f"{PROGRAM} {name}"))


def _clear_away_when_terminated() -> None:
    """SIGTERM ends a verb as Ctrl-C does: half a copy of a store, with its content and keys, is not left behind.

    What a script starts with ``&`` has SIGINT ignored, so that neither would end it; taken back, both do.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def run(verbs: typer.Typer, arguments: Sequence[str], *, program: str = PROGRAM) -> int:
    """Carry out *arguments*; the exit code."""
    try:
        code = _carry_out(verbs, arguments, program)
        print(end="", flush=True)  # here, where a closed pipe still can be told
    except TyperException as wrong:
        return _say(f"{wrong.format_message().replace(PARSERS_WORDS, '')}{_next_step(wrong)}", EXIT_USAGE)
    except Refusal as refusal:
        return _say(f"{refusal}{_where_listed(refusal)}", EXIT_USAGE)
    except Fault as fault:
        return _say(f"{fault}{_next_step(fault)}", EXIT_STORE)
    except (sqlite3.Error, UnicodeDecodeError) as damage:  # what a damaged file makes SQLite's driver raise
        return _say(f"the ledger cannot be read: {damage}{_next_step(damage)}", EXIT_STORE)
    except BrokenPipeError:
        _write_no_more()
        return EXIT_PIPE
    except OSError as error:  # of what stdout was sent to, or of a file that has no message of its own
        if not is_of_disk(error):
            raise
        _write_no_more()
        where = "" if error.filename is None else f" to {error.filename}"
        return _say(f"cannot write{where}: {error.strerror}{_next_step(error)}", EXIT_STORE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    return code


def _write_no_more() -> None:
    """Let what is still buffered go nowhere: the interpreter would try again, and fail again, as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _next_step(error: BaseException | None) -> str:
    """What to do about a disk that is full or errs, where that is behind *error*; else nothing."""
    while error is not None:
        if is_of_disk(error):
            return "; make room there, or see to the disk, and do it again"
        error = error.__cause__
    return ""


LISTS: dict[type[Refusal], str] = {
    UnknownKey: "keys list",
    UnknownBreak: "breaks list --all",
    UnknownCallback: "callbacks list --all",
}
"""The verb that shows the ids there are, by the refusal of one that there is not."""


def _where_listed(refusal: Refusal) -> str:
    verb = LISTS.get(type(refusal))
    return "" if verb is None else f": `{PROGRAM} {verb}` shows those there are"


def _carry_out(verbs: typer.Typer, arguments: Sequence[str], program: str) -> int:
    """As `run`, for what goes as it should. Not left to typer, whose own ending knows other codes and more lines."""
    try:
        with get_command(verbs).make_context(program, [*arguments]) as context:
            context.command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _say(message: str, exit_code: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
