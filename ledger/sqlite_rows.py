"""Rows of the SQLite engine, in and out: the order of columns is the one of ``sqlite_sql``."""

from collections.abc import Sequence
from typing import Any

from ledger.engine import AccountChange
from ledger.errors import DamagedError
from ledger.ids import TaskId
from ledger.records import SUM_MAX_MICROS, AccountRow, ClaimRow, Entry, Head, KeyRow, Placed, Recorded, TaskRow


def event_values(recorded: Recorded) -> tuple[Any, ...]:
    entry = recorded.entry
    return (
        recorded.position,
        recorded.lane,
        recorded.stream,
        recorded.version,
        entry.type,
        entry.recorded_at_us,
        entry.effective_at_us,
        recorded.account,
        entry.amount_micros,
        entry.actor,
        entry.request_id,
        entry.facts.decode(),
        entry.payload,
        recorded.hash,
    )


def read_event(row: Sequence[Any]) -> Recorded:
    """The event in a row.

    Raises:
        DamagedError: the row has no facts; where a page is damaged SQLite may give one that is nothing but NULLs.
    """
    position, lane, stream, version, kind, recorded_at, effective_at, account, amount = row[:9]
    actor, request_id, data, payload, link, seal_key = row[9:]
    if data is None:
        raise DamagedError(f"the row at position {position} has lost its facts")
    entry = Entry(
        type=kind,
        recorded_at_us=recorded_at,
        effective_at_us=effective_at,
        amount_micros=amount,
        actor=actor,
        request_id=request_id,
        facts=data.encode(),
        payload=payload,
    )
    return Recorded(
        lane=lane,
        position=position,
        stream=stream,
        version=version,
        account=account,
        entry=entry,
        hash=link,
        seal_key=seal_key,
    )


def read_head(row: Sequence[Any]) -> Head:
    lane, position, link, recorded_at = row
    return Head(lane=lane, position=position, hash=link, recorded_at_us=recorded_at)


def task_values(row: TaskRow, position: int) -> tuple[Any, ...]:
    return (
        row.task_id,
        row.account,
        row.contract,
        row.capability,
        row.model,
        row.status,
        row.version,
        position,
        row.created_at_us,
        row.authorised_micros,
        row.held_micros,
        row.released_micros,
        row.charged_micros,
        row.refunded_micros,
        row.view,
    )


def read_task(row: Sequence[Any]) -> Placed:
    task, account, contract, capability, model, status, version, position, created_at = row[:9]
    authorised, held, released, charged, refunded, view, seal_key = row[9:]
    return Placed(
        position=position,
        seal_key=seal_key,
        row=TaskRow(
            task_id=TaskId(task),
            account=account,
            contract=contract,
            capability=capability,
            model=model,
            status=status,
            version=version,
            created_at_us=created_at,
            authorised_micros=authorised,
            held_micros=held,
            released_micros=released,
            charged_micros=charged,
            refunded_micros=refunded,
            view=view,
        ),
    )


def claim_values(claim: ClaimRow) -> tuple[Any, ...]:
    place = (claim.task_id, claim.version, claim.appended, claim.at_us)
    return (*claim.id, claim.fingerprint, *place)


def read_claim(row: Sequence[Any]) -> ClaimRow:
    account, operation, key, fingerprint, task, version, appended, at_us = row
    return ClaimRow(
        account=account,
        operation=operation,
        key=key,
        fingerprint=fingerprint,
        task_id=TaskId(task),
        version=version,
        appended=bool(appended),
        at_us=at_us,
    )


def key_values(key: KeyRow) -> tuple[Any, ...]:
    return (key.key_id, key.account, key.contract, key.role, key.digest, key.issued_at_us, key.revoked_at_us)


def read_key(row: Sequence[Any]) -> KeyRow:
    key_id, account, contract, role, digest, issued_at, revoked_at = row
    return KeyRow(
        key_id=key_id,
        account=account,
        contract=contract,
        role=role,
        digest=digest,
        issued_at_us=issued_at,
        revoked_at_us=revoked_at,
    )


def account_values(account: str, change: AccountChange) -> tuple[Any, ...]:
    """The change as the row to be merged into the account's; behind it, the version that it rests on."""
    terms = change.terms
    sums = (change.held_micros, change.charged_micros, change.refunded_micros, change.expected_micros)
    return (
        account,
        change.position,
        *((0, None, None) if terms is None else (terms.version, terms.limit_micros, terms.granted_micros)),
        *(max(-SUM_MAX_MICROS, min(moved, SUM_MAX_MICROS)) for moved in sums),
        change.live_tasks,
        change.rests_on,
    )


def read_account(row: Sequence[Any]) -> AccountRow:
    account, position, version, limit, granted, held, charged, refunded, expected, live_tasks = row
    return AccountRow(
        account=account,
        position=position,
        version=version,
        limit_micros=limit,
        granted_micros=granted,
        held_micros=held,
        charged_micros=charged,
        refunded_micros=refunded,
        expected_micros=expected,
        live_tasks=live_tasks,
    )
