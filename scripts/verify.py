"""`task-ledger verify`: whether the log is what was written, and all that is folded from it follows from it."""

import asyncio
import sys
import time
from collections.abc import Sequence

import typer

from projections.audit import audit
from projections.audit_findings import Finding, Progress, Report
from scripts import stores
from scripts.printed import JsonOption, json_line, table

PATIENCE_SECONDS = 1.0
"""How long an audit runs before a progress bar appears."""


def verify(*, store: stores.StoreOption = stores.DEFAULT, as_json: JsonOption = False) -> None:
    """Check store, chain, positions, versions, seals, money, accounts and every row; exit 1: something was found."""
    report = asyncio.run(_audit(store))
    if as_json:
        json_line(report)
    else:
        _tell(report)
    if report.found:
        raise typer.Exit(1)


async def _audit(store: str) -> Report:
    bar = _Bar() if sys.stderr is not None and sys.stderr.isatty() else None
    try:
        async with stores.to_read(store) as engine:
            return await (audit(engine) if bar is None else audit(engine, progress=bar.move))
    finally:
        if bar is not None:
            bar.clear()


class _Bar:
    """A progress bar that comes late and leaves no trace."""

    def __init__(self) -> None:
        self._due = time.monotonic() + PATIENCE_SECONDS
        self._move: Progress | None = None

    def move(self, done: int, total: int) -> None:
        if self._move is None and time.monotonic() >= self._due:
            self._move = self._appear()
        if self._move is not None:
            self._move(done, total)

    def clear(self) -> None:
        if self._move is not None:
            self._bar.stop()

    def _appear(self) -> Progress:
        from rich.console import Console  # noqa: PLC0415 - most audits are over before there is a bar
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        self._bar = RichProgress(console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task("verify")
        return lambda done, total: self._bar.update(task, completed=done, total=total)


def _tell(report: Report) -> None:
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
