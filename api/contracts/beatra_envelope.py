"""beatra's words for a task, and the envelope that shows one.

Source: beatra API reference, "Cancel a task (best-effort)", whose answer is the whole envelope.
"""

from typing import Any

import msgspec

from ledger.ids import Digits, Spelling
from ledger.money import fixed_text, parse_credits
from ledger.task import TERMINAL, Callback, Status, Task
from ledger.times import rfc3339

SPELLING = Spelling("tsk_", Digits.ULID)

STATUSES = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.COMPLETED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELLED: "canceled",
    Status.EXPIRED: "failed",
}
MESSAGES = {  # chosen, like `stage`: what progress says until a worker says something
    Status.QUEUED: "Waiting to start",
    Status.RUNNING: "Running",
    Status.COMPLETED: "Done",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Canceled",
    Status.EXPIRED: "Expired before it finished",
}
DECIMALS = 4  # chosen, of every amount and quantity: the vendor shows prices so
CREDITS_PER_USD = 1000  # the vendor's default rate, pinned
METERS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "image_count",
    "image_pixels",
    "video_seconds",
    "audio_seconds",
    "characters",
)


def view(task: Task) -> dict[str, Any]:
    """The task envelope.

    What is not there is null, lists are empty, links are paths, and a model that stands for no other resolves to itself
    (all chosen).
    """
    spelled = SPELLING.spell(task.task_id)
    run = task.run
    return {
        "object": "task",
        "task_id": spelled,
        "status": STATUSES[task.status],
        "capability": task.capability,
        "model": task.model,
        "resolved_model": task.resolved_model or task.model,
        "metadata": {name: _text(value) for name, value in task.metadata.items()},
        "input": run.input,
        "progress": _progress(task),
        "output": run.output if task.status is Status.COMPLETED else None,
        "warnings": [{"code": w.code, "message": w.message, "field": w.field} for w in run.warnings],
        "error": _error(task),
        "usage": _usage(task),
        "billing": _billing(task),
        "callback": None if task.callback is None else _callback(task.callback),
        "created_at": rfc3339(task.created_at_us),
        "started_at": _time(run.started_at_us),
        "completed_at": _time(run.finished_at_us),
        "cancel_requested_at": _time(run.cancel_requested_at_us),
        "links": {"self": f"/v1/tasks/{spelled}", "cancel": f"/v1/tasks/{spelled}/cancel"},
    }


def credits_fixed(micros: int) -> str:
    """Credits with exactly four decimals (chosen: the vendor shows prices so)."""
    return fixed_text(micros, decimals=DECIMALS)


def usd_fixed(micros: int) -> str:
    """The amount in US dollars at the pinned rate, with four decimals: for display only."""
    return fixed_text(micros, decimals=DECIMALS, each=CREDITS_PER_USD)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _progress(task: Task) -> dict[str, Any]:
    run, status = task.run, STATUSES[task.status]
    over = task.status in TERMINAL
    if task.status is Status.CANCELLED and run.started_at_us is None:
        return {"percent": 0, "stage": status, "message": "Canceled before start"}
    return {
        "percent": run.percent or 0,
        "stage": status if over else run.stage or status,
        "message": MESSAGES[task.status] if over else run.message or MESSAGES[task.status],
    }


def _error(task: Task) -> dict[str, Any] | None:
    if task.status is Status.EXPIRED:
        return {"code": "task_expired", "message": "The task expired before it finished.", "retryable": True}
    problem = task.run.problem
    if problem is None:
        return None
    return {"code": problem.code, "message": problem.message, "retryable": problem.retryable}


def _usage(task: Task) -> dict[str, Any] | None:
    """Meters as the worker reported them, and what the customer paid in the end (chosen: the net)."""
    usage = task.run.usage
    if usage is None:
        return None
    return {
        **{meter: usage.get(meter, 0) for meter in METERS},
        "lines": [_line(line) for line in usage.get("lines", ())],
        "credits": credits_fixed(task.net_micros),
        "credits_usd_reference": usd_fixed(task.net_micros),
    }


def _line(line: dict[str, Any]) -> dict[str, Any]:
    billed_micros, quantity_micros = parse_credits(line["billed_amount_credits"]), parse_credits(line["quantity"])
    assert billed_micros is not None, "checked when it was reported"
    assert quantity_micros is not None, "the same"
    return {
        "meter": line["meter"],
        "quantity": fixed_text(quantity_micros, decimals=DECIMALS),
        "unit": line["unit"],
        "billed_amount_credits": credits_fixed(billed_micros),
        "billed_amount_credits_usd_reference": usd_fixed(billed_micros),
    }


def _billing(task: Task) -> dict[str, Any]:
    return {
        "charged_credits": credits_fixed(task.charged_micros),
        "refunded_credits": credits_fixed(task.refunded_micros),
        "charged_credits_usd_reference": usd_fixed(task.charged_micros),
        "refunded_credits_usd_reference": usd_fixed(task.refunded_micros),
        "currency": "USD",
    }


def _callback(callback: Callback) -> dict[str, Any]:
    """``pending`` is the vendor's; delivered, and failed once it is given up, are chosen."""
    delivered = callback.delivered_at_us is not None
    return {
        "url": callback.url,
        "status": "delivered" if delivered else "failed" if callback.gave_up else "pending",
        "attempt_count": callback.attempts,
        "delivered_at": _time(callback.delivered_at_us),
        "last_error": callback.last_error,
    }
