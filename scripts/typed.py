"""What verbs have in common: who acts, when, and how an account or a configuration is typed in."""

import time

import typer

ACCOUNT_MAX_CHARS = 128
BY = "cli"
"""The actor of what is done on the command line."""


def now_us() -> int:
    return time.time_ns() // 1000


def account_in(name: str) -> str:
    """*name*, if it can be an account's: as the native API has it."""
    if not 1 <= len(name) <= ACCOUNT_MAX_CHARS or not (name.isascii() and name.isprintable()) or " " in name:
        raise typer.BadParameter("must be 1 to 128 visible characters")
    return name


def wrong_config(error: ValueError | OSError) -> typer.BadParameter:
    """What *error* has against the configuration, or a file that it names, without the system's numbers."""
    said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return typer.BadParameter(said, param_hint="'--config'")
