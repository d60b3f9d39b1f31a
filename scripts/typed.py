"""What verbs have in common: who acts, when, and how an account is typed in."""

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
