"""What the native API reads: bodies as typed structs, unknown fields refused, and the commands they become."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from api.bodies import fingerprint, read_json
from api.contracts.shape import OUT_TASK_ID, Asked
from api.refusals import Invalid
from ledger.commands import Charge, Claim, Complete, ConfirmCancel, Fail, Progress, Refund, Start
from ledger.events import Notice
from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from ledger.money import parse_credits
from ledger.times import parse_rfc3339

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"\A[!-~]+\Z")]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
OutTaskId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Url = Annotated[str, msgspec.Meta(max_length=2048)]
Amount = Annotated[str, msgspec.Meta(max_length=32)]


class CreateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account: Name
    contract: Name
    model: Name
    capability: Name | None = None
    input: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    estimated_credits: Amount | None = None
    estimated_seconds: Seconds | None = None
    out_task_id: OutTaskId | None = None
    callback_url: Url | None = None
    expires_at: str | None = None
    follows: Name | msgspec.UnsetType | None = msgspec.UNSET
    """Unset: it is no part of the fingerprint, so a create from before there was this field has the one it had."""


class _Reported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    event_id: Key | None = None
    effective_at: str | None = None


class StartedBody(_Reported, frozen=True, kw_only=True, tag="started"):
    worker: Name | None = None
    provider_task_id: Key | None = None


class ProgressedBody(_Reported, frozen=True, kw_only=True, tag="progressed"):
    percent: Percent | None = None
    stage: Key | None = None
    message: Text | None = None


class NoticeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: Name
    message: Text
    field: Key | None = None


class CompletedBody(_Reported, frozen=True, kw_only=True, tag="completed"):
    output: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    warnings: tuple[NoticeBody, ...] = ()
    actual_credits: Amount | None = None


class FailedBody(_Reported, frozen=True, kw_only=True, tag="failed"):
    code: Name
    message: Text = ""
    retryable: bool = False
    actual_credits: Amount | None = None


class CancelledBody(_Reported, frozen=True, kw_only=True, tag="cancelled"):
    actual_credits: Amount | None = None


class ChargedBody(_Reported, frozen=True, kw_only=True, tag="charged"):
    amount_credits: Amount
    key: Key
    reason: Text | None = None


class RefundedBody(_Reported, frozen=True, kw_only=True, tag="refunded"):
    amount_credits: Amount
    key: Key
    reason: Text | None = None


ReportBody: TypeAlias = (
    StartedBody | ProgressedBody | CompletedBody | FailedBody | CancelledBody | ChargedBody | RefundedBody
)


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    account: Name
    contract: Name
    role: Role | None = None


class RotateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    overlap_seconds: Seconds = 86_400


class LimitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*limit_credits* null: no limit."""

    limit_credits: Amount | None


class GrantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount_credits: Amount
    key: Key
    reason: Text | None = None


class RevocationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*grant* is the key of the grant that is taken back, *key* the revocation's own."""

    grant: Key
    amount_credits: Amount
    key: Key
    reason: Text | None = None


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


def credits_in(text: str | None, field: str) -> int | None:
    """Micro-credits of a decimal text.

    Raises:
        Invalid: it is not a plain decimal with at most six decimals, not negative, and not too large.
    """
    if text is None:
        return None
    micros = parse_credits(text)
    if micros is None:
        raise Invalid(f'{field} must be decimal text such as "1.5", not negative, at most six decimals', param=field)
    return micros


def time_in(text: str | None, field: str) -> int | None:
    """Microseconds of an RFC 3339 time.

    Raises:
        Invalid: it is none.
    """
    if text is None:
        return None
    at_us = parse_rfc3339(text)
    if at_us is None:
        raise Invalid(f"{field} must be an RFC 3339 time such as 2026-01-02T03:04:05Z", param=field)
    return at_us


def contract_in(name: str, known: Collection[str]) -> None:
    """Refuse a contract that is none of *known*.

    Raises:
        Invalid: so it is.
    """
    if name not in known:
        raise Invalid(f"contract must be one of {', '.join(known)}", param="contract")


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


def report_in(asked: Asked, task: TaskId) -> Start | Progress | Complete | Fail | ConfirmCancel | Charge | Refund:
    """The report in the request.

    Raises:
        Invalid: the body or ``If-Match`` cannot be read.
    """
    body: ReportBody = read_json(asked.body, ReportBody)  # type: ignore[arg-type]
    common: dict[str, Any] = {
        "task_id": task,
        "at_us": asked.now_us,
        "actor": asked.key_id,
        "request_id": asked.request_id,
        "expected_version": if_match(asked),
        "effective_at_us": time_in(body.effective_at, "effective_at"),
        "claims": () if body.event_id is None else (_event_claim(body, task),),
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


def positive_credits(text: str) -> int:
    """Micro-credits of an amount that must be more than 0.

    Raises:
        Invalid: it is not.
    """
    micros = credits_in(text, "amount_credits")
    if not micros:
        raise Invalid("amount_credits must be more than 0", param="amount_credits")
    return micros


def _event_claim(body: ReportBody, task: TaskId) -> Claim:
    """One event id is one report, for ever: a second delivery changes nothing."""
    assert body.event_id is not None
    return Claim(
        account="",
        operation=f"report {Spelling.UUID.spell(task)}",
        key=body.event_id,
        fingerprint=fingerprint(body),
    )


def if_match(asked: Asked) -> int | None:
    """The version that the caller has read, out of ``If-Match: "VERSION"``.

    Raises:
        Invalid: it is neither that nor ``*``.
    """
    text = asked.headers.get("If-Match")
    if text is None or text == "*":
        return None
    digits = text.removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16 and text == f'"{digits}"'):  # noqa: PLR2004
        raise Invalid('If-Match must be a version in quotes, such as "3"', param="If-Match")
    return int(digits)


def idempotency_key(asked: Asked) -> str | None:
    """The ``Idempotency-Key``: a structured-field string, or a bare token, of 1 to 255 characters.

    Raises:
        Invalid: it is neither.
    """
    text = asked.headers.get("Idempotency-Key")
    if text is None:
        return None
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1]
    if not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()) or '"' in text:  # noqa: PLR2004
        raise Invalid("Idempotency-Key must be 1 to 255 visible characters", param="Idempotency-Key")
    return text


def create_claims(asked: Asked, body: CreateBody) -> tuple[Claim, ...]:
    """The keys of a create, which never expire: the header's, and the customer's own ``out_task_id``.

    Raises:
        Invalid: one of them cannot be a key.
    """
    claims = []
    key = idempotency_key(asked)
    if key is not None:
        told = body if body.follows else msgspec.structs.replace(body, follows=msgspec.UNSET)
        claims.append(Claim(account=body.account, operation="create", key=key, fingerprint=fingerprint(told)))
    if body.out_task_id is not None:
        if not body.out_task_id.isprintable():
            raise Invalid("out_task_id must be printable", param="out_task_id")
        claims.append(
            Claim(
                account=body.account,
                operation=OUT_TASK_ID,
                key=body.out_task_id,
                fingerprint=fingerprint(body.model, body.input),
            )
        )
    return tuple(claims)
