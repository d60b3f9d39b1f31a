"""What clients may want of their account's webhooks, and what they are shown: between a row and `api.webhooks`."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ledger.callbacks import Webhook
from projections.callbacks.rows import Delivery


class ListHooks(NamedTuple):
    """Show all webhooks of the account."""


class AddHook(NamedTuple):
    """Add a webhook; without a secret it is given one."""

    url: str
    tells: tuple[str, ...]
    secret: str | None


class ChangeHook(NamedTuple):
    """Change a webhook; None: as it is."""

    webhook_id: str
    url: str | None
    tells: tuple[str, ...] | None
    enabled: bool | None
    secret: str | None


class RemoveHook(NamedTuple):
    """Remove a webhook."""

    webhook_id: str


class HookDeliveries(NamedTuple):
    """Show what was posted to a webhook and is to be, newest first."""

    webhook_id: str
    limit: int
    skip: int


HookWish: TypeAlias = ListHooks | AddHook | ChangeHook | RemoveHook | HookDeliveries


class HookTold(NamedTuple):
    """What there is to show: the webhooks, or the one that was added or changed; a secret only when it was added."""

    hooks: Sequence[Webhook] = ()
    secret: str | None = None
    deliveries: Sequence[Delivery] = ()
    total: int = 0
    """Deliveries in all."""
