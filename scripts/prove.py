"""`task-ledger prove`: one file that shows what stands in the log, and the check of such a file, which needs no ledger.

The check reads the file and the verifier key, and nothing else: a customer runs it on a machine of its own.
"""

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from api.contracts import parse_any
from ledger.engine import Engine
from ledger.money import credits_text
from ledger.notes import Checkpoint, NoteError
from ledger.proofs import Proof, Proven, UnprovenError, check
from ledger.records import Recorded
from projections.audit import prove as proving
from projections.follow import Progress
from scripts import note_files, stores
from scripts.options import OutputOption
from scripts.printed import JsonOption, event_json, facts_text, instant, json_line, plain, table, task_of
from scripts.progress import bar

_POSITION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def prove(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[TASK|POSITION]", help="A task in any contract's spelling, or a place in the log."),
    ] = None,
    *,
    earlier: Annotated[
        Path | None, typer.Option("--from", metavar="NOTE", help="Also that the log extends this checkpoint.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="NOTE", help="Against this one, and not the last.")
    ] = None,
    checked: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Check this proof; no ledger is needed.")
    ] = None,
    key: note_files.VerifierOption = None,
    output: OutputOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Prove that events stand in the log and that it only grew, or check such a proof; exit 1: it is not so."""
    if checked is not None:
        if what is not None or against is not None or output is not None:
            raise typer.BadParameter(
                "a proof is checked with --key, and --from if you kept one", param_hint="'--check'"
            )
        _check(checked, key, earlier, as_json=as_json)
        return
    if key is not None:
        raise typer.BadParameter("a key checks, it does not prove", param_hint="'--key'")
    if what is None and earlier is None:
        raise typer.BadParameter("name a task, a position, or --from a checkpoint", param_hint="'TASK|POSITION'")
    proof = _made(store, what, earlier, against)
    note_files.write_out(f"{msgspec.json.encode(proof).decode()}\n", output)


# Proving


def _made(store: str, what: str | None, earlier: Path | None, against: Path | None) -> Proof:
    last = against or note_files.kept_path(stores.path_of(store))
    if against is None and not last.exists():
        raise typer.BadParameter("sign one first: task-ledger checkpoint", param_hint="'--checkpoint'")
    note = note_files.read_text(last, hint="--checkpoint")
    before = None if earlier is None else note_files.read_text(earlier, hint="--from")
    try:
        with bar("prove") as move:
            return asyncio.run(_prove(store, what, note, before, move))
    except NoteError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="'NOTE'") from None
    except proving.NotThisLogError as wrong:
        print(f"not to be proven: {wrong}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _prove(store: str, what: str | None, note: str, earlier: str | None, progress: Progress) -> Proof:
    async with stores.to_read(store) as engine:
        positions = [] if what is None else await _positions(engine, what)
        return await proving.prove(engine, note, positions=positions, earlier=earlier, progress=progress)


async def _positions(engine: Engine, what: str) -> list[int]:
    """Where the events stand that *what* names."""
    if _POSITION.fullmatch(what):
        return [int(what)]
    task = parse_any(what)
    rows = [] if task is None else await engine.streams([task])
    if not rows:
        raise typer.BadParameter(f"there is no task {what!r}, and it is no position", param_hint="'TASK|POSITION'")
    return [row.position for row in rows]


# Checking


def _check(path: Path, key: str | None, kept: Path | None, *, as_json: bool) -> None:
    verifier = note_files.verifier(key)
    own = None if kept is None else note_files.signed_checkpoint(kept, verifier, hint="--from")
    try:
        proven = check(note_files.read_bytes(path, hint="--check"), verifier, since=own)
    except UnprovenError as wrong:
        if as_json:
            json_line({"proven": False, "why": str(wrong)})
        else:
            print(plain(f"NOT PROVEN: {wrong}"))
        raise typer.Exit(1) from None
    if as_json:
        json_line(_as_json(proven))
    else:
        _tell(proven)


def _tell(proven: Proven) -> None:
    whole = _named(proven.checkpoint)
    if proven.events:
        table(("position", "recorded", "task", "v", "type", "account", "credits", "facts"), map(_row, proven.events))
        print(f"proven: {len(proven.events)} {'event' if len(proven.events) == 1 else 'events'} in the log {whole}")
    if proven.earlier is not None:
        print(f"proven: the log {whole} extends that {_named(proven.earlier)}")


def _row(row: Recorded) -> Sequence[str]:
    entry = row.entry
    amount = "" if entry.amount_micros is None else credits_text(entry.amount_micros)
    when, task = instant(entry.recorded_at_us), task_of(row) or "none"
    return str(row.position), when, task, str(row.version), entry.type, row.account, amount, facts_text(row)


def _named(checkpoint: Checkpoint) -> str:
    return f"{plain(checkpoint.origin)} of size {checkpoint.tree.size}, root {checkpoint.root_text}"


def _as_json(proven: Proven) -> dict[str, object]:
    earlier = None if proven.earlier is None else _tree_json(proven.earlier)
    events = list(map(_event_json, proven.events))
    return {"proven": True, **_tree_json(proven.checkpoint), "earlier": earlier, "events": events}


def _tree_json(checkpoint: Checkpoint) -> dict[str, object]:
    return {"origin": checkpoint.origin, "size": checkpoint.tree.size, "root": checkpoint.root_text}


def _event_json(row: Recorded) -> dict[str, object]:
    """As `tail` has it, but for what only the ledger knows: its cursors, and what sealed content opens with."""
    told = event_json(row, log_id="")
    return {name: value for name, value in told.items() if name not in {"cursor", "payload", "erased"}}


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(prove)
