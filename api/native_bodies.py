"""The bodies that the native API takes, as typed structs that refuse unknown fields; and amounts and times in them."""

from collections.abc import Collection
from typing import Annotated, Any, TypeAlias

import msgspec

from api.refusals import Invalid
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


class ReasonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
        Invalid: it is none of them.
    """
    if name not in known:
        raise Invalid(f"contract must be one of {', '.join(known)}", param="contract")


def positive_credits(text: str) -> int:
    """Micro-credits of an amount that must be more than 0.

    Raises:
        Invalid: it is not.
    """
    micros = credits_in(text, "amount_credits")
    if not micros:
        raise Invalid("amount_credits must be more than 0", param="amount_credits")
    return micros
