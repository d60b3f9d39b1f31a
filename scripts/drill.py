"""`task-ledger drill`: whether this store can be brought back: backup, restore and verify, and what would be lost."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ledger.engine import Engine
from projections.audit.findings import Report
from scripts import stores
from scripts.backup import back_up
from scripts.printed import JsonOption, json_line
from scripts.restore import restore_to
from scripts.verify import tell


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill came to."""

    passed: bool
    position: int
    """Up to where the restored log goes."""
    bytes: int
    backup_seconds: float
    restore_seconds: float
    """Verifying included."""
    lost_events: int
    """What was appended meanwhile: the loss, had the store been lost when the drill was over."""
    lost_seconds: float
    """Over so long a time: from the moment of the backup to the last of them."""
    same: bool
    """Whether the store has, where the restored log ends, the very hash that that one has."""
    report: Report
    """What verifying the restored store found."""


def drill(
    *,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where there is room for two copies; else as TMPDIR says.")
    ] = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Back the store up, restore that elsewhere, verify it, tell loss and time, and clear away; exit 1: not clean."""
    done = asyncio.run(_drill(store, folder))
    if as_json:
        json_line(done)
    else:
        _tell(done)
    if not done.passed:
        raise typer.Exit(1)


async def _drill(store: str, folder: Path | None) -> Drill:
    with tempfile.TemporaryDirectory(prefix="task-ledger-drill-", dir=folder) as place:
        file, target = Path(place, "backup.db"), Path(place, "restored.db")
        began_at = time.time_ns() // 1000
        made = back_up(stores.path_of(store), file)
        done = await restore_to(file, target)
        async with stores.to_read(store) as engine:
            lost_events, last_us, same = await _held_against(engine, made.position, made.head)
    return Drill(
        passed=done.restored and same,
        position=made.position,
        bytes=made.bytes,
        backup_seconds=made.seconds,
        restore_seconds=done.seconds,
        lost_events=lost_events,
        lost_seconds=max(0, last_us - began_at) / 1e6 if lost_events else 0.0,
        same=same,
        report=done.report,
    )


async def _held_against(engine: Engine, position: int, head: str) -> tuple[int, int, bool]:
    """What the store has beyond *position*, until when, and whether it has *head* there."""
    end = await engine.head()
    there = await engine.after(position - 1, 1) if position else []
    same = position == 0 or (bool(there) and there[0].hash.hex() == head)
    return end.position - position, end.recorded_at_us, same


def _tell(done: Drill) -> None:
    tell(done.report)
    print(f"backup: {done.backup_seconds:.2f} s for {done.bytes} bytes, up to position {done.position}")
    print(f"restore: {done.restore_seconds:.2f} s, verified")
    print(f"loss, had the store been lost now: {done.lost_events} events of {done.lost_seconds:.2f} s")
    if not done.same:
        print(f"not the same log: the store has another hash at position {done.position}")


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(drill)
