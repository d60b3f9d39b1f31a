"""`task-ledger verify`: whether the log is what was written, and all that is folded from it follows from it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ledger.notes import Checkpoint
from projections.audit.findings import Finding, Report
from projections.audit.quick_check import Means
from projections.audit.quick_check import verify as verify_store
from projections.replay.workers import workers_here
from scripts import note_files, stores
from scripts.printed import JsonOption, json_line, table
from scripts.progress import bar


def verify(
    *,
    against: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="NOTE", help="The log extends this one too; any number of them."),
    ] = None,
    key: note_files.VerifierOption = None,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Check store, chain, positions, versions, seals, money, accounts and every row; exit 1: something was found."""
    checkpoints = _signed(against or [], key)
    report = asyncio.run(_audit(store, checkpoints))
    if as_json:
        json_line(report)
    else:
        tell(report, checkpoints)
    if report.found:
        raise typer.Exit(1)


def _signed(paths: Sequence[Path], key: str | None) -> list[Checkpoint]:
    if not paths and key is not None:
        raise typer.BadParameter("there is a key, and no --checkpoint", param_hint="'--key'")
    if not paths:
        return []
    verifier = note_files.verifier(key)
    return [note_files.signed_checkpoint(path, verifier, hint="--checkpoint") for path in paths]


async def _audit(store: str, checkpoints: Sequence[Checkpoint]) -> Report:
    with bar("verify") as move:
        async with stores.to_read(store) as engine:
            means = Means(workers_here(), checkpoints=checkpoints)
            return await verify_store(engine, stores.path_of(store), means, progress=move)


def tell(report: Report, checkpoints: Sequence[Checkpoint] = ()) -> None:
    """Print what an audit came to."""
    read = f"{report.events} events of {report.tasks} tasks up to position {report.position}, head {report.head}"
    if not report.found:
        print(f"clean: {read}")
        for one in checkpoints:
            print(f"extends the checkpoint of size {one.tree.size}")
        return
    table(("check", "position", "task", "detail"), map(_row, report.findings))
    if report.found > len(report.findings):
        print(f"and {report.found - len(report.findings)} more")
    print(f"not clean: {report.found} findings in {read}")
    first = report.first_bad_position
    print(f"first bad position: {'none, no event is concerned' if first is None else first}")


def _row(finding: Finding) -> Sequence[str]:
    position = "" if finding.position is None else str(finding.position)
    return finding.check, position, finding.task or "", finding.detail


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(verify)
