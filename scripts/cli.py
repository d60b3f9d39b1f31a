"""`task-ledger <verb>`: the operator's command line. A verb is a module of this package and a line below.

Exit codes: 0 fine, 1 the check found something, 2 wrong use, 3 the ledger cannot be opened or read. What is expected
to go wrong is said in one line on stderr; a traceback is always a bug.
"""

import os
import sqlite3
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from ledger.errors import Fault, Refusal
from scripts import keys
from scripts.tail import tail
from scripts.trace import trace
from scripts.verify import verify

PROGRAM = "task-ledger"
EXIT_USAGE, EXIT_STORE = 2, 3
EXIT_PIPE, EXIT_INTERRUPT = 128 + 13, 128 + 2  # as of a process that ended by SIGPIPE, SIGINT

app = typer.Typer(
    name=PROGRAM,
    help="A ledger for asynchronous tasks and their money.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.command()(tail)
app.command()(trace)
app.command()(verify)


def main(verb: str | None = None) -> None:
    """Carry out the command line, or what of it follows *verb*, and end the process."""
    sys.exit(run(sys.argv[1:] if verb is None else [verb, *sys.argv[1:]]))


def run(arguments: Sequence[str]) -> int:
    """Carry out *arguments*; the exit code."""
    try:
        with get_command(app).make_context(PROGRAM, [*arguments]) as context:
            context.command.invoke(context)
        print(end="", flush=True)  # here, where a closed pipe still can be told
    except typer.Exit as done:
        return done.exit_code
    except TyperException as wrong:
        return _say(wrong.format_message(), EXIT_USAGE)
    except Refusal as refusal:
        return _say(str(refusal), EXIT_USAGE)
    except (Fault, sqlite3.Error) as fault:
        return _say(str(fault), EXIT_STORE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return EXIT_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    return 0


def _say(message: str, exit_code: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
