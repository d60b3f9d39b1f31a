"""Options that several verbs have, and what else they have in common: who acts, and when."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from projections.places import NoSuchPlaceError

ACCOUNT_MAX_CHARS = 128
OVERLAP_SECONDS = 86_400
OVERLAP_MAX_SECONDS = 366 * 86_400
"""How long what is rotated may be good beside what takes its place."""
BY = "cli"
"""The actor of what is done on the command line."""

OutputOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there.")]


def now_us() -> int:
    return time.time_ns() // 1000


def account_in(name: str) -> str:
    """*name*, if it can be an account's: as the native API has it."""
    if not 1 <= len(name) <= ACCOUNT_MAX_CHARS or not (name.isascii() and name.isprintable()) or " " in name:
        raise typer.BadParameter("must be 1 to 128 visible characters")
    return name


@contextmanager
def at_option() -> Iterator[None]:
    """While it is entered, what ``--at`` names is looked up.

    Raises:
        typer.BadParameter: it names no place of the log.
    """
    try:
        yield
    except NoSuchPlaceError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="'--at'") from None
