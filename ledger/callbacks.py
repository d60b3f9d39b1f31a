"""Callbacks: what is told to whom, when a failed try comes again, with what it is signed, and webhooks. Pure.

A *callback* is one event of a task, posted to one address: the task's own, or a webhook of its account. Its id is a
digest of the three, so every try of it has the same, whoever rebuilds what from the log; receivers tell copies by it.

What an operator or a customer changes is an event in a stream of the account's own. Secrets never lie there: that of an
account is derived from the pepper and a number, so it can be shown again, and another pepper makes another one; that
of a webhook, which a customer may bring along, is sealed under a key derived from the pepper. Alternative beaten: to
derive both, for a secret that the customer chose cannot be derived.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias, assert_never

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from ledger.errors import DamagedError, TooManyWebhooks, UnknownWebhook
from ledger.events import (
    CallbackEvent,
    CallbackResent,
    CallbackSecretRotated,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    tag_of,
)
from ledger.ids import Spelling, TaskId
from ledger.seals import NONCE_BYTES
from ledger.streams import named_stream
from ledger.times import US_PER_SECOND

WEBHOOKS_MAX = 16
"""Webhooks that an account may have at once."""
JITTER_PERCENT = 20
"""By so much, at most, a retry is later than its schedule says: those who failed together do not come back together."""

DAY_SECONDS = (10, 60, 300, 900, 3600, 7200, 14_400, 21_600, 21_600, 21_600)
"""Seconds between one try and the next, a little more than a day in all: who was down for a day is told by himself."""


class Calling(NamedTuple):
    """What of a task's life a contract tells, and how patiently."""

    tells: frozenset[str]
    """Tags of events."""
    delays_seconds: tuple[int, ...] = DAY_SECONDS
    """Between one try and the next; as many retries as there are."""


def callback_id(task: TaskId, about: int, webhook: str | None) -> str:
    """The name of the callback, the same at each try."""
    told = b"\x00".join((b"task-ledger callback", task, about.to_bytes(8, "big"), (webhook or "").encode()))
    return f"msg_{hashlib.sha256(told).hexdigest()[:32]}"


def due_us(calling: Calling, name: str, *, tried: int, failed_at_us: int) -> int | None:
    """When the callback called *name*, of which *tried* tries have failed, is tried again; None: it is given up.

    The jitter is a digest of name and try, so whoever reads the log comes to the same time.
    """
    if tried > len(calling.delays_seconds):
        return None
    lot = hashlib.sha256(f"{name} {tried}".encode()).digest()[0]
    delay_us = calling.delays_seconds[tried - 1] * US_PER_SECOND
    return failed_at_us + delay_us + delay_us * JITTER_PERCENT * lot // 25_500


# What an account has arranged


class Webhook(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An address that is told of all the account's tasks of one contract."""

    webhook_id: str
    contract: str
    url: str
    tells: tuple[str, ...]
    sealed_secret: str
    created_at_us: int
    enabled: bool = True


class Arranged(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An account's webhooks and the number of its secret, as of event *version* of its stream."""

    version: int = 0
    webhooks: dict[str, Webhook] = {}
    generation: int = 1
    old_until_us: int = 0
    """Until then the secret before signs too."""

    def webhook(self, webhook_id: str) -> Webhook:
        """The webhook.

        Raises:
            UnknownWebhook: there is none, or it has been removed.
        """
        found = self.webhooks.get(webhook_id)
        if found is None:
            raise UnknownWebhook(webhook_id)
        return found

    def generations(self, at_us: int) -> tuple[int, ...]:
        """The numbers of the secrets that sign at *at_us*, the newest first."""
        return (self.generation, self.generation - 1) if at_us < self.old_until_us else (self.generation,)


NOTHING_ARRANGED = Arranged()


class AddWebhook(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    webhook_id: str
    contract: str
    url: str
    tells: tuple[str, ...]
    sealed_secret: str


class ChangeWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """None: as it is."""

    at_us: int
    webhook_id: str
    url: str | None = None
    tells: tuple[str, ...] | None = None
    enabled: bool | None = None
    sealed_secret: str | None = None
    if_url: str | None = None
    """Only while this is its address."""


class RemoveWebhook(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    webhook_id: str


class RotateSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A new secret for the account's callbacks; the old one signs beside it for *overlap_us*."""

    at_us: int
    overlap_us: int


class Resend(msgspec.Struct, frozen=True, kw_only=True):
    """Post the callback again, from now on."""

    at_us: int
    task_id: TaskId
    about: int
    webhook: str | None
    reason: str | None = None


CallbackCommand: TypeAlias = AddWebhook | ChangeWebhook | RemoveWebhook | RotateSecret | Resend


def decide_callback(arranged: Arranged, command: CallbackCommand) -> list[CallbackEvent]:
    """The events that *command* causes; none if it is so already.

    Raises:
        TooManyWebhooks: the account has as many as it may.
        UnknownWebhook: it has none of that name.
    """
    at_us = command.at_us
    match command:
        case AddWebhook():
            if len(arranged.webhooks) >= WEBHOOKS_MAX:
                raise TooManyWebhooks(WEBHOOKS_MAX)
            return [WebhookAdded(**msgspec.structs.asdict(command))]
        case ChangeWebhook():
            return _change(arranged.webhook(command.webhook_id), command)
        case RemoveWebhook(webhook_id=webhook_id):
            arranged.webhook(webhook_id)
            return [WebhookRemoved(at_us=at_us, webhook_id=webhook_id)]
        case RotateSecret(overlap_us=overlap_us):
            generation = arranged.generation + 1
            return [CallbackSecretRotated(at_us=at_us, generation=generation, old_until_us=at_us + overlap_us)]
        case Resend(task_id=task, about=about, webhook=webhook):
            resent = CallbackResent(
                at_us=at_us,
                callback_id=callback_id(task, about, webhook),
                task=Spelling.UUID.spell(task),
                about=about,
                webhook=webhook,
                reason=command.reason,
            )
            return [resent]
        case _:
            assert_never(command)


def _change(known: Webhook, command: ChangeWebhook) -> list[CallbackEvent]:
    if command.if_url not in (None, known.url):
        return []
    changed = WebhookChanged(
        at_us=command.at_us,
        webhook_id=known.webhook_id,
        url=known.url if command.url is None else command.url,
        tells=known.tells if command.tells is None else command.tells,
        enabled=known.enabled if command.enabled is None else command.enabled,
        sealed_secret=command.sealed_secret,
    )
    stands = (known.url, known.tells, known.enabled, None)
    return [] if stands == (changed.url, changed.tells, changed.enabled, changed.sealed_secret) else [changed]


def evolve_arranged(arranged: Arranged, event: CallbackEvent) -> Arranged:
    """What the account has arranged after *event*: total, for a webhook that is not there stays away."""
    arranged = replace(arranged, version=arranged.version + 1)
    webhooks = arranged.webhooks
    match event:
        case WebhookAdded():
            return replace(arranged, webhooks={**webhooks, event.webhook_id: added_webhook(event)})
        case WebhookChanged(webhook_id=webhook_id):
            known = webhooks.get(webhook_id)
            if known is None:
                return arranged
            return replace(arranged, webhooks={**webhooks, webhook_id: changed_webhook(known, event)})
        case WebhookRemoved(webhook_id=webhook_id):
            return replace(arranged, webhooks={name: one for name, one in webhooks.items() if name != webhook_id})
        case CallbackSecretRotated(generation=generation, old_until_us=until_us):
            return replace(arranged, generation=generation, old_until_us=until_us)
        case CallbackResent():
            return arranged
        case _:
            assert_never(event)


def callback_violations(arranged: Arranged, event: CallbackEvent) -> Iterable[str]:
    """What is wrong with this event after *arranged*."""
    match event:
        case WebhookAdded(webhook_id=webhook_id) if webhook_id in arranged.webhooks:
            yield f"webhook {webhook_id!r} is added a second time"
        case WebhookChanged(webhook_id=webhook_id) | WebhookRemoved(webhook_id=webhook_id):
            if webhook_id not in arranged.webhooks:
                yield f"{tag_of(event)} of webhook {webhook_id!r}, which is not there"
        case CallbackSecretRotated(generation=generation) if generation != arranged.generation + 1:
            yield f"secret number {generation} follows {arranged.generation}"
        case CallbackResent(callback_id=name, task=task, about=about, webhook=webhook):
            known = Spelling.UUID.parse(task)
            if known is None or about < 0 or callback_id(known, about, webhook) != name:
                yield "the id of the callback is not the digest of task, event and webhook"
        case _:
            pass


def added_webhook(event: WebhookAdded) -> Webhook:
    """The webhook that *event* adds."""
    return Webhook(
        webhook_id=event.webhook_id,
        contract=event.contract,
        url=event.url,
        tells=event.tells,
        sealed_secret=event.sealed_secret,
        created_at_us=event.at_us,
    )


def changed_webhook(known: Webhook, event: WebhookChanged) -> Webhook:
    """The webhook after *event*."""
    secret = known.sealed_secret if event.sealed_secret is None else event.sealed_secret
    return replace(known, url=event.url, tells=event.tells, enabled=event.enabled, sealed_secret=secret)


def fold_arranged(events: Sequence[CallbackEvent]) -> Arranged:
    """What these events, oldest first, leave behind."""
    return reduce(evolve_arranged, events, NOTHING_ARRANGED)


def callbacks_stream(account: str) -> bytes:
    """The 16 bytes that name the stream of what the account has arranged."""
    return named_stream(b"callbacks", account)


# Secrets


def account_secret(pepper: bytes, account: str, generation: int) -> str:
    """What the account's callbacks are signed with, as Standard Webhooks spells secrets."""
    told = b"\x00".join((b"task-ledger callback secret", account.encode(), b"%d" % generation))
    return "whsec_" + base64.b64encode(hmac.digest(pepper, told, "sha256")).decode()


def seal_secret(secret: str, *, pepper: bytes, nonce: bytes, webhook_id: str) -> str:
    """*secret* as it may lie in the log, in hex; *nonce* is 12 random bytes."""
    assert len(nonce) == NONCE_BYTES
    return (nonce + AESGCM(_sealing_key(pepper)).encrypt(nonce, secret.encode(), webhook_id.encode())).hex()


def open_secret(sealed: str, *, pepper: bytes, webhook_id: str) -> str:
    """What `seal_secret` was given.

    Raises:
        DamagedError: it was sealed under another pepper, or for another webhook, or is not what was sealed.
    """
    try:
        raw = bytes.fromhex(sealed)
        aead = AESGCM(_sealing_key(pepper))
        return aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], webhook_id.encode()).decode()
    except (InvalidTag, ValueError):
        raise DamagedError(f"the secret of webhook {webhook_id} does not open under this pepper") from None


def _sealing_key(pepper: bytes) -> bytes:
    return hmac.digest(pepper, b"task-ledger webhook secrets", "sha256")
