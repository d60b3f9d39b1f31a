"""What a vendor's file says of callbacks: which events it tells, in which body, with which headers. Pure.

Standard Webhooks (standardwebhooks.com) is here because most of them sign so: id, time and raw body, joined with dots,
under HMAC-SHA-256; a signature for each secret, so that one can replace another without a gap.
"""

import base64
import hmac
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ledger.callbacks import DAY_SECONDS, Calling
from ledger.task import Task
from ledger.times import US_PER_SECOND

OUTCOMES = {"completed": "completed", "failed": "failed", "cancelled": "cancelled", "expired": "expired"}
"""Tags of the events that end a run."""
TIMEOUT_SECONDS = 10
"""From the look-up of the name to the end of the answer."""


class Fact(NamedTuple):
    """The event that is told."""

    callback_id: str
    type: str
    """Its tag."""
    at_us: int


class Letter(NamedTuple):
    """A body that is to be signed now, with each of these secrets."""

    callback_id: str
    at_us: int
    body: bytes
    secrets: tuple[str, ...]

    @property
    def at_seconds(self) -> int:
        return self.at_us // US_PER_SECOND


class Telling(NamedTuple):
    """How a contract tells of its tasks."""

    words: Mapping[str, str]
    """What the vendor calls the events that it tells, by their tags."""
    body: Callable[[Task, Fact], bytes]
    """Made of the task as the event left it."""
    headers: Callable[[Letter], dict[str, str]]
    delays_seconds: tuple[int, ...] = DAY_SECONDS
    timeout_seconds: int = TIMEOUT_SECONDS

    @property
    def calling(self) -> Calling:
        """The same, for who keeps the queue."""
        return Calling(frozenset(self.words), self.delays_seconds)


def standard_webhooks(letter: Letter) -> dict[str, str]:
    """The headers of Standard Webhooks."""
    return signed(letter, prefix="webhook")


def signed(letter: Letter, *, prefix: str) -> dict[str, str]:
    """The headers of Standard Webhooks under another name, as Svix has them."""
    told = b"%b.%d.%b" % (letter.callback_id.encode(), letter.at_seconds, letter.body)
    marks = (hmac.digest(_key(secret), told, "sha256") for secret in letter.secrets)
    return {
        f"{prefix}-id": letter.callback_id,
        f"{prefix}-timestamp": str(letter.at_seconds),
        f"{prefix}-signature": " ".join(f"v1,{base64.b64encode(mark).decode()}" for mark in marks),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))
