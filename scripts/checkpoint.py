"""`task-ledger checkpoint`: what the log is now, signed: a note of three lines that proves a log, or gives it away.

A log never signs what contradicts what it has signed before. So the last checkpoint is kept beside the ledger, and one
that the log does not extend is not followed by another.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from ledger.merkle import Tree
from ledger.notes import Checkpoint, SignerKey, sign_checkpoint
from projections.audit.prove import NotThisLogError, tree_of
from projections.follow import Progress
from scripts import note_files, stores
from scripts.options import OutputOption
from scripts.printed import JsonOption, json_line
from scripts.progress import bar


def checkpoint(
    *,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key; it is made if there is none.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(metavar="NAME", help="What a new key calls the log, as example.com/ledger.")
    ] = None,
    only_key: Annotated[
        bool, typer.Option("--verifier-key", help="Print the key to check signatures with, and sign nothing.")
    ] = False,
    output: OutputOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Sign the log's origin, size and root hash; exit 1: the log does not extend what was signed before."""
    ledger = stores.path_of(store)
    log_id = asyncio.run(_log_id(store))
    path = key or note_files.key_path(ledger)
    signer, is_new = note_files.read_or_make_key(path, origin=origin or f"task-ledger/{log_id}")
    if origin not in {None, signer.name}:
        raise typer.BadParameter(f"the key in {path} is of {signer.name}", param_hint="'--origin'")
    if is_new:
        print(f"a new key is in {path}; give out the verifier key: {signer.verifier}", file=sys.stderr)
    if only_key:
        _tell_key(signer, as_json=as_json)
        return
    note, tree = _signed(store, note_files.kept_path(ledger), signer)
    if as_json:
        told = {"origin": signer.name, "size": tree.size, "root": Checkpoint(signer.name, tree).root_text, "note": note}
        json_line(told | {"verifier_key": str(signer.verifier)})
    if output is not None or not as_json:
        note_files.write_out(note, output)


async def _log_id(store: str) -> str:
    async with stores.to_read(store) as engine:
        return engine.log_id


def _tell_key(signer: SignerKey, *, as_json: bool) -> None:
    if as_json:
        json_line({"origin": signer.name, "verifier_key": str(signer.verifier)})
    else:
        print(signer.verifier)


def _signed(store: str, kept: Path, signer: SignerKey) -> tuple[str, Tree]:
    """The note of what the log is now, which is the last one then, and the tree that it tells."""
    before = note_files.signed_checkpoint(kept, signer.verifier, hint="--key") if kept.exists() else None
    try:
        with bar("checkpoint") as move:
            tree = asyncio.run(_tree(store, before, move))
    except NotThisLogError as wrong:
        print(f"nothing is signed: {wrong}; that checkpoint is in {kept}", file=sys.stderr)
        raise typer.Exit(1) from None
    note = sign_checkpoint(tree, signer)
    note_files.keep(kept, note)
    return note, tree


async def _tree(store: str, before: Checkpoint | None, progress: Progress) -> Tree:
    async with stores.to_read(store) as engine:
        return await tree_of(engine, extends=before, progress=progress)


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(checkpoint)
