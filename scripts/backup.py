"""`task-ledger backup`: the store as it is at one moment, in a file of its own, also beside a running service."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ledger.sqlite_copies import copy, publish
from ledger.sqlite_scratch import scratch
from scripts import stores
from scripts.printed import JsonOption, json_line
from scripts.progress import bar


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that has been made. *position* and *head* name the end of the log in it."""

    file: str
    log_id: str
    position: int
    head: str
    """The hash at the end, in hex."""
    bytes: int
    seconds: float


def backup(
    *,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The file to make; there must be none.")],
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Copy the store to FILE while it is in use; content, API keys and the keys of the seals included."""
    if output.exists():
        raise typer.BadParameter(f"{output} is there already: name a new file", param_hint="'--output'")
    made = back_up(stores.path_of(store), output)
    if as_json:
        json_line(made)
    else:
        print(f"{made.file}: {made.bytes} bytes, up to position {made.position}, head {made.head}")


def back_up(source: Path, output: Path) -> Backup:
    """Make the backup.

    Raises:
        CannotOpenError: there is no ledger, it is none of ours, or no file can be made at *output*.
        StorageError: it cannot be read, or there is no room.
    """
    began_at = time.perf_counter()
    with bar("backup") as move, scratch(output) as partial:
        end = copy(source, partial, at_rest=False, progress=move)
        publish(partial, output)
    return Backup(
        file=str(output),
        log_id=end.log_id,
        position=end.position,
        head=end.hash.hex(),
        bytes=output.stat().st_size,
        seconds=round(time.perf_counter() - began_at, 3),
    )


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(backup)
