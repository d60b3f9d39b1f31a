"""`task-ledger verify`: whether the log is what was written, and all that is folded from it follows from it."""

import asyncio
from collections.abc import Sequence

import typer

from projections.audit import audit
from projections.audit_findings import Finding, Report
from scripts import stores
from scripts.printed import JsonOption, json_line, table
from scripts.progress import bar


def verify(*, store: stores.StoreOption = stores.DEFAULT, as_json: JsonOption = False) -> None:
    """Check store, chain, positions, versions, seals, money, accounts and every row; exit 1: something was found."""
    report = asyncio.run(_audit(store))
    if as_json:
        json_line(report)
    else:
        tell(report)
    if report.found:
        raise typer.Exit(1)


async def _audit(store: str) -> Report:
    with bar("verify") as move:
        async with stores.to_read(store) as engine:
            return await audit(engine, progress=move)


def tell(report: Report) -> None:
    """Print what an audit came to."""
    read = f"{report.events} events of {report.tasks} tasks up to position {report.position}, head {report.head}"
    if not report.found:
        print(f"clean: {read}")
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
