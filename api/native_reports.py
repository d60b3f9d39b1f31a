"""A worker's report, as a body is read into the command that it becomes. Pure."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from api.bodies import fingerprint, read_json
from api.contracts.shape import Asked
from api.native_bodies import (
    Amount,
    CancelledBody,
    ChargedBody,
    CompletedBody,
    FailedBody,
    Name,
    ProgressedBody,
    RefundedBody,
    ReportBody,
    StartedBody,
    credits_in,
    positive_credits,
    time_in,
)
from api.refusals import Invalid
from ledger.commands import Charge, Claim, Complete, ConfirmCancel, Fail, Progress, Refund, Start
from ledger.events import Notice
from ledger.ids import Spelling, TaskId

Keyed: TypeAlias = Callable[[tuple[Claim, ...]], tuple[Claim, ...]]
"""Claims as the log may keep them."""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was made: what every contract reads of it."""

    kind: Literal["video", "image", "audio", "model3d", "document"]
    url: str | None = None


class Output(msgspec.Struct, frozen=True, kw_only=True):
    assets: list[Asset] = []


class UsageLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of usage; quantity and amount are decimal text."""

    meter: Name
    quantity: Amount
    unit: Name
    billed_amount_credits: Amount = "0"


def report_in(
    asked: Asked, task: TaskId, *, keyed: Keyed
) -> Start | Progress | Complete | Fail | ConfirmCancel | Charge | Refund:
    """The report of *task* in the request; its claim on an event id is kept as `Keyring.keyed` gives it.

    Raises:
        Invalid: the body cannot be read.
    """
    body: ReportBody = read_json(asked.body, ReportBody)  # type: ignore[arg-type]
    common: dict[str, Any] = {
        "task_id": task,
        "at_us": asked.now_us,
        "actor": asked.key_id,
        "request_id": asked.request_id,
        "effective_at_us": time_in(body.effective_at, "effective_at"),
        "claims": () if body.event_id is None else keyed((_event_claim(body, task),)),
    }
    match body:
        case StartedBody():
            return Start(**common, worker=body.worker, provider_task_id=body.provider_task_id)
        case ProgressedBody():
            return Progress(**common, percent=body.percent, stage=body.stage, message=body.message)
        case CompletedBody():
            actual = credits_in(body.actual_credits, "actual_credits")
            usage = usage_in(body.usage)
            output = output_in(body.output)
            warnings = tuple(Notice(**msgspec.structs.asdict(warning)) for warning in body.warnings)
            return Complete(**common, output=output, usage=usage, warnings=warnings, actual_micros=actual)
        case FailedBody():
            actual = credits_in(body.actual_credits, "actual_credits")
            return Fail(**common, code=body.code, message=body.message, retryable=body.retryable, actual_micros=actual)
        case CancelledBody():
            return ConfirmCancel(**common, actual_micros=credits_in(body.actual_credits, "actual_credits"))
        case ChargedBody():
            return Charge(
                **common, amount_micros=positive_credits(body.amount_credits), key=body.key, reason=body.reason
            )
        case RefundedBody():
            return Refund(
                **common, amount_micros=positive_credits(body.amount_credits), key=body.key, reason=body.reason
            )


def _event_claim(body: ReportBody, task: TaskId) -> Claim:
    """One event id is one report, for ever: a second delivery changes nothing."""
    assert body.event_id is not None
    return Claim(
        account="",
        operation=f"report {Spelling.UUID.spell(task)}",
        key=body.event_id,
        fingerprint=fingerprint(body),
    )


def output_in(output: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was made: its ``assets`` each have a kind and an address, all else is free.

    Raises:
        Invalid: an asset is not of this shape.
    """
    try:
        msgspec.convert(output or {}, Output)
    except msgspec.ValidationError as error:
        raise Invalid(f"output: {error}", param="output.assets") from None
    return output


def usage_in(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    """Meters, which are whole numbers, and ``lines``.

    Raises:
        Invalid: a meter is not a whole number from 0, or a line is not of its shape.
    """
    if usage is None:
        return None
    for meter, count in usage.items():
        if meter != "lines" and (type(count) is not int or count < 0):
            raise Invalid(f"usage.{meter} must be a whole number from 0", param=f"usage.{meter}")
    try:
        lines = msgspec.convert(usage.get("lines", []), list[UsageLine])
    except msgspec.ValidationError as error:
        raise Invalid(f"usage.lines: {error}", param="usage.lines") from None
    for line in lines:
        credits_in(line.quantity, "usage.lines.quantity")
        credits_in(line.billed_amount_credits, "usage.lines.billed_amount_credits")
    return {**usage, "lines": [msgspec.structs.asdict(line) for line in lines]}
