"""What every event has: when it happened, the claims that were taken with it, and what a customer may want erased."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ledger.upcasts import SHAPE


class Claimed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An idempotency key taken by the request that caused this event."""

    account: str
    operation: str
    key: str
    fingerprint: str


class Notice(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A warning to the customer about a task that went on."""

    code: str
    message: str
    field: str | None = None


class Payload(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a customer may want erased: content and free text. JSON values only."""

    input: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    output: dict[str, Any] | None = None
    message: str | None = None
    warnings: tuple[Notice, ...] = ()


NO_PAYLOAD = Payload()


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="type", omit_defaults=True):
    """A fact about one task."""

    at_us: int
    payload: Payload | UnsetType = UNSET
    claims: tuple[Claimed, ...] = ()
    shape: int = SHAPE
    """Which way of writing this event it is; see `ledger.upcasts`."""

    @property
    def content(self) -> Payload:
        """The payload, empty if there was none or it has been erased."""
        return NO_PAYLOAD if self.payload is UNSET else self.payload
