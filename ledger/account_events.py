"""What can happen to an account beside its tasks: its keys, its credit, and what it has arranged about callbacks."""

from typing import TypeAlias

from ledger.event_base import Event


class KeyIssued(Event, frozen=True, kw_only=True, tag="key-issued"):
    """An API key exists from now on. The log holds a keyed hash of its secret, never the secret."""

    key_id: str
    role: str
    contract: str
    digest: str
    replaces: str | None = None


class KeyRevoked(Event, frozen=True, kw_only=True, tag="key-revoked"):
    """The key is dead from *revoked_at_us* on, which for a rotated key lies ahead."""

    key_id: str
    revoked_at_us: int


class CreditLimited(Event, frozen=True, kw_only=True, tag="credit-limited"):
    """The account may owe this much from now on; None: its limit is taken away."""

    limit_micros: int | None


class CreditMoved(Event, frozen=True, kw_only=True):
    """The account's own credit changed. Under one key it changes once. The reason is the operator's, and stays."""

    amount_micros: int  # > 0
    key: str
    reason: str | None = None


class CreditGranted(CreditMoved, frozen=True, kw_only=True, tag="credit-granted"):
    pass


class CreditRevoked(CreditMoved, frozen=True, kw_only=True, tag="credit-revoked"):
    """A part of the grant *grant*, or all of it, is taken back: how a grant is corrected."""

    grant: str


class WebhookAdded(Event, frozen=True, kw_only=True, tag="webhook-added"):
    """From now on the account's tasks of *contract* are told of at this address, as the vendor words it."""

    webhook_id: str
    contract: str
    url: str
    tells: tuple[str, ...]
    """Tags of the events that are told."""
    sealed_secret: str
    """What is signed with, sealed under the pepper, in hex."""


class WebhookChanged(Event, frozen=True, kw_only=True, tag="webhook-changed"):
    """The webhook is as it says here from now on; without a secret, it keeps the one that it has."""

    webhook_id: str
    url: str
    tells: tuple[str, ...]
    enabled: bool
    sealed_secret: str | None = None


class WebhookRemoved(Event, frozen=True, kw_only=True, tag="webhook-removed"):
    webhook_id: str


class CallbackSecretRotated(Event, frozen=True, kw_only=True, tag="callback-secret-rotated"):
    """The account's callbacks are signed with its secret of this number, and until then with the one before as well."""

    generation: int
    old_until_us: int


class CallbackResent(Event, frozen=True, kw_only=True, tag="callback-resent"):
    """An operator wants it posted again, now, and as often as if it were new."""

    callback_id: str
    task: str
    """The task, as the native API spells it."""
    about: int
    webhook: str | None = None
    reason: str | None = None


KeyEvent: TypeAlias = KeyIssued | KeyRevoked
WebhookEvent: TypeAlias = WebhookAdded | WebhookChanged | WebhookRemoved
CallbackEvent: TypeAlias = WebhookEvent | CallbackSecretRotated | CallbackResent
CreditEvent: TypeAlias = CreditLimited | CreditGranted | CreditRevoked
AccountEvent: TypeAlias = KeyEvent | CreditEvent
