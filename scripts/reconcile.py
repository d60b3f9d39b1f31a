"""`task-ledger reconcile`: the ledger against itself, and against a provider's statement, line by line."""

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Annotated

import typer

from api.contracts import parse_any
from ledger.errors import NotReplaceable, StatementSuperseded, UnknownProvider
from projections.reconciliation.comparison import Billed
from projections.reconciliation.self_check import STUCK_HOURS, Scope
from projections.reconciliation.statement_format import StatementFormat
from projections.reconciliation.statement_records import NotAStatementError
from projections.reconciliation.statements import Statement, read_statement
from projections.reports.parameters import WrongWordError, period_of
from scripts import stores
from scripts.configured import catalogue_of, settings_in
from scripts.options import at_option, now_us
from scripts.printed import JsonOption
from scripts.reconcile_printed import tell
from scripts.reconcile_run import Wanted, providers_of, reconciled

STATEMENT_MAX_BYTES = 256 * 2**20
DIGEST = re.compile("[0-9a-f]{64}")


def reconcile(
    *,
    statement: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A provider's statement: CSV or JSON lines.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="P", help="Only this provider: whose statement it is.")
    ] = None,
    new_provider: Annotated[
        bool, typer.Option("--new-provider", help="It is one that no task, catalogue or configuration knows yet.")
    ] = False,
    replaces: Annotated[
        str | None,
        typer.Option(metavar="FILE|DIGEST", help="The statement that this one stands for: its file, or its SHA-256."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="T", help="Where the period begins: a date or a time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Before when it ends.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="POSITION", help="As known there, or at a time; writes nothing.")
    ] = None,
    stuck_hours: Annotated[int, typer.Option(min=0, help="After how many hours a hold is stuck.")] = STUCK_HOURS,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing to the log.")] = False,
    store: stores.StoreOption = stores.DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Compare the books with themselves and with a statement; exit 1 when a break is open or a line is malformed."""
    period, found = _period(since, until), settings_in(config)
    billed = None if statement is None else _billed(statement, provider, found.statements, store)
    if billed is not None:
        provider = billed.provider
    providers = None if new_provider or provider is None else {*found.statements, *catalogue_of(found).providers}
    if billed is not None:
        since_us, until_us = period
        billed = billed._replace(
            since_us=since_us,
            until_us=until_us,
            providers=providers,
            replaces=None if replaces is None else _digest(replaces),
        )
    elif replaces is not None or new_provider:
        raise typer.BadParameter("without a statement there is nothing to say it of", param_hint="'--statement'")
    scope = Scope(provider, *(given or whole for given, whole in zip(period, Scope()[1:], strict=True)))
    wanted = Wanted(now_us(), billed, scope, providers, stuck_hours, at, writes=not dry_run and at is None)
    try:
        with at_option():
            outcome = asyncio.run(reconciled(store, wanted, as_json=as_json))
    except NotAStatementError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="'--statement'") from None
    except UnknownProvider as unknown:
        way = "" if billed is None else "; --new-provider takes a new one"
        raise typer.BadParameter(f"{unknown}{way}", param_hint="'--provider'") from None
    except (NotReplaceable, StatementSuperseded) as refusal:
        hint = "'--replaces'" if isinstance(refusal, NotReplaceable) else "'--statement'"
        raise typer.BadParameter(str(refusal), param_hint=hint) from None
    tell(outcome, wanted, as_json=as_json)
    if outcome.open or (billed is not None and billed.statement.malformed_count):
        raise typer.Exit(1)


# What is asked


def _digest(replaces: str) -> str:
    """The SHA-256 that names a statement: as it is given, or of the file of that name."""
    if DIGEST.fullmatch(replaces):
        return replaces
    try:
        return hashlib.sha256(_data(Path(replaces), "'--replaces'")).hexdigest()
    except OSError as error:
        problem = f"it is neither a SHA-256 in hex nor a file that can be read: {error.strerror}"
        raise typer.BadParameter(problem, param_hint="'--replaces'") from error


def _period(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    told = {name: text for name, text in (("since", since), ("until", until)) if text is not None}
    try:
        return period_of(told)
    except WrongWordError as wrong:
        raise typer.BadParameter(str(wrong), param_hint=f"'--{wrong.name}'") from None


def _billed(path: Path, provider: str | None, formats: dict[str, StatementFormat], store: str) -> Billed:
    """The statement, and whose it is: as it is told, or the only one of the configuration, or as its lines tell."""
    if provider is None and len(formats) == 1:
        (provider,) = formats
    if provider == "" or (provider is None and formats):
        raise typer.BadParameter("a statement is a provider's: name it", param_hint="'--provider'")
    form = formats.get(provider or "", StatementFormat())
    statement = _read(path, form)
    return Billed(provider or _provider_of(store, statement), statement, form)


def _provider_of(store: str, statement: Statement) -> str:
    named = asyncio.run(providers_of(store, statement))
    if len(named) != 1:
        what = f"its lines name tasks of {', '.join(sorted(named))}" if named else "its lines name no task that is here"
        raise typer.BadParameter(f"whose statement is it? {what}: name the provider", param_hint="'--provider'")
    return named.pop()


def _read(path: Path, form: StatementFormat) -> Statement:
    try:
        return read_statement(_data(path, "'--statement'"), form, task_in=parse_any)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="'--statement'") from error
    except NotAStatementError as wrong:
        raise typer.BadParameter(f"{path} is no statement: {wrong}", param_hint="'--statement'") from None


def _data(path: Path, option: str) -> bytes:
    with path.open("rb") as file:
        data = file.read(STATEMENT_MAX_BYTES + 1)
    if len(data) > STATEMENT_MAX_BYTES:
        raise typer.BadParameter(f"it is larger than {STATEMENT_MAX_BYTES} bytes", param_hint=option)
    return data


if __name__ == "__main__":
    from scripts.cli import run_alone

    run_alone(reconcile)
