"""What the native API shows: tasks, events, keys and accounts. Money is decimal text, times RFC 3339."""

from typing import Any

import msgspec

from api.contracts import CONTRACTS
from ledger.cursors import position_cursor
from ledger.ids import Spelling
from ledger.keys import is_dead
from ledger.money import credits_text
from ledger.records import AccountRow, KeyRow, Recorded
from ledger.task import Callback, Task
from ledger.times import rfc3339
from projections.explain.rules import settled_by

CONTRACT_NAME = "ledger"
"""The name of the native contract."""
ROOT = "/ledger/v1"


def spell_public(task: Task) -> str:
    """The task's id as its own contract spells it."""
    return CONTRACTS[task.contract].spelling.spell(task.task_id)


def task_view(task: Task, *, position: int, log_id: str) -> dict[str, Any]:
    """The native task. The cursor is the place in the feed right after the task's last event."""
    spelled = Spelling.UUID.spell(task.task_id)
    run, problem = task.run, task.run.problem
    return {
        "id": spelled,
        "public_id": spell_public(task),
        "contract": task.contract,
        "account": task.account,
        "status": task.status,
        "capability": task.capability,
        "model": task.model,
        "provider": task.provider,
        "version": task.version,
        "cursor": position_cursor(log_id, position),
        "out_task_id": task.out_task_id,
        "follows": task.follows,
        "created_at": rfc3339(task.created_at_us),
        "started_at": _time(run.started_at_us),
        "finished_at": _time(run.finished_at_us),
        "cancel_requested_at": _time(run.cancel_requested_at_us),
        "cancel_requested": run.cancel_requested_at_us is not None,
        "stalled_since": _time(run.stalled_since_us),
        "expires_at": _time(task.expires_at_us),
        "estimated_seconds": task.estimated_seconds,
        "worker": run.worker,
        "provider_task_id": run.provider_task_id,
        "progress": {"percent": run.percent, "stage": run.stage, "message": run.message},
        "input": run.input,
        "metadata": task.metadata,
        "output": run.output,
        "error": None if problem is None else msgspec.structs.asdict(problem),
        "usage": run.usage,
        "warnings": [msgspec.structs.asdict(warning) for warning in run.warnings],
        "late_reports": task.late_reports,
        "deleted": task.deleted,
        "billing": {
            "school": task.terms.school,
            "rule": settled_by(task),
            "rate_version": task.terms.rate_version,
            "estimated_credits": credits_text(task.terms.estimated_micros),
            "held_credits": credits_text(task.held_micros),
            "charged_credits": credits_text(task.charged_micros),
            "released_credits": credits_text(task.released_micros),
            "refunded_credits": credits_text(task.refunded_micros),
            "net_credits": credits_text(task.net_micros),
        },
        "callback": None if task.callback is None else _callback(task.callback),
        "links": {
            "self": f"{ROOT}/tasks/{spelled}",
            "events": f"{ROOT}/tasks/{spelled}/events",
            "cancel": f"{ROOT}/tasks/{spelled}/cancel",
        },
    }


def event_view(recorded: Recorded, *, log_id: str) -> dict[str, Any]:
    """One row of the log; ``data`` holds its facts, ``payload`` what may be erased: null when it has been.

    Raises:
        DamagedError: the payload is not what was sealed.
    """
    entry, payload = recorded.entry, recorded.payload
    return {
        "cursor": position_cursor(log_id, recorded.position),
        "position": recorded.position,
        "version": recorded.version,
        "type": entry.type,
        "recorded_at": rfc3339(entry.recorded_at_us),
        "effective_at": rfc3339(entry.effective_at_us),
        "actor": entry.actor,
        "request_id": entry.request_id,
        "amount_credits": None if entry.amount_micros is None else credits_text(entry.amount_micros),
        "data": msgspec.Raw(entry.facts),
        "payload": None if payload is None else msgspec.Raw(payload),
        "erased": recorded.is_erased,
        "hash": recorded.hash.hex(),
    }


def key_view(row: KeyRow, *, now_us: int) -> dict[str, Any]:
    """A key, but for its secret, which is kept nowhere."""
    return {
        "key_id": row.key_id,
        "account": row.account,
        "contract": row.contract,
        "role": row.role,
        "issued_at": rfc3339(row.issued_at_us),
        "revoked_at": _time(row.revoked_at_us),
        "alive": not is_dead(row, now_us),
    }


def account_view(row: AccountRow) -> dict[str, Any]:
    """What an account may spend, and how many of its tasks are under way, as of *position*.

    An unlimited one has no figure of what is available.
    """
    return {
        "account": row.account,
        "unlimited": row.unlimited,
        "limit_credits": credits_or_none(row.limit_micros),
        "granted_credits": credits_or_none(row.granted_micros),
        "held_credits": credits_text(row.held_micros),
        "charged_credits": credits_text(row.charged_micros),
        "refunded_credits": credits_text(row.refunded_micros),
        "net_credits": credits_text(row.charged_micros - row.refunded_micros),
        "expected_credits": credits_text(row.expected_micros),
        "exposure_credits": credits_text(row.exposure_micros),
        "available_credits": None if row.unlimited else credits_text(row.available_micros),
        "live_tasks": row.live_tasks,
        "position": row.position,
    }


def credits_or_none(micros: int | None) -> str | None:
    return None if micros is None else credits_text(micros)


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _callback(callback: Callback) -> dict[str, Any]:
    return {
        "url": callback.url,
        "attempts": callback.attempts,
        "delivered_at": _time(callback.delivered_at_us),
        "last_error": callback.last_error,
        "gave_up": callback.gave_up,
    }
