"""ByteSpike's callbacks: to the address of a task, and to the webhooks of an account, with the routes of those.

Source: the docs name the routes, HMAC-SHA256 over the body with the secret that is shown once at creation (32 hex when
it is generated), and HTTPS only in production. All shapes are chosen::

    POST /api/v1/me/webhooks {"url": "https://...", "events": ["task.completed"], "secret": "..."}
    201 {"id": "wh_...", "url": "https://...", "events": [...], "enabled": true, "created": 1767323045, "secret": "..."}
    GET  /api/v1/me/webhooks  200 {"object": "list", "data": [{"id": ...}]}

Without ``events`` all are told; a ``secret`` is 16 to 128 visible characters. PUT takes the same fields and
``enabled``, and leaves as it is what it does not name; a new secret signs alone from then on. DELETE answers 204.
Deliveries are listed newest first, for thirty days, ``page`` from 1 on, ``page_size`` 1 to 100, by itself 20. A webhook
is told of the account's tasks that were created in this contract, and a 410 from it disables it.

The body of a webhook is ``{"id", "event", "created", "data"}`` with the query's answer as data; that of a task's own
address is the query's answer. Both carry ``X-ByteSpike-Timestamp`` (Unix seconds) and ``X-ByteSpike-Signature:
sha256=<hex>``; while one secret of an account replaces another there are two, separated by a comma. ``webhook-id`` is
the same at each try. A task's own callback is signed in the way of Standard Webhooks too.
"""

import hmac
import re
from typing import Annotated, Any

import msgspec

from api.bodies import read_json
from api.contracts.hooks import AddHook, ChangeHook, HookDeliveries, HookTold, HookWish, ListHooks, RemoveHook
from api.contracts.shape import Answer, Asked, Hooks, json_answer
from api.contracts.telling import OUTCOMES, Letter, standard_webhooks
from api.refusals import Invalid
from ledger.callbacks import Webhook
from ledger.times import US_PER_SECOND

EVENTS = {tag: f"task.{word}" for tag, word in (OUTCOMES | {"expired": "failed"}).items()}
"""By tag. To its customers an expired task has failed."""
NAMES = tuple(dict.fromkeys(EVENTS.values()))
DELAYS_SECONDS = (60, 120, 240, 480, 960)
PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PAGE_MAX = 20, 100, 10_000
PARAMS = frozenset({"page", "page_size"})
_ID = re.compile("wh_[0-9a-f]{32}")

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Events = Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(NAMES))]
Secret = Annotated[str, msgspec.Meta(min_length=16, max_length=128, pattern=r"\A[!-~]+\Z")]


class AddBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: Url
    events: Events | None = None
    secret: Secret | None = None


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None
    secret: Secret | None = None


# Signing


def of_account(letter: Letter) -> dict[str, str]:
    """The headers of a webhook's callback."""
    marks = (hmac.digest(secret.encode(), letter.body, "sha256").hex() for secret in letter.secrets)
    return {
        "webhook-id": letter.callback_id,
        "X-ByteSpike-Timestamp": str(letter.at_seconds),
        "X-ByteSpike-Signature": ",".join(f"sha256={mark}" for mark in marks),
    }


def of_task(letter: Letter) -> dict[str, str]:
    """The headers of a task's own callback."""
    return standard_webhooks(letter) | of_account(letter)


# The routes


def _list(_: Asked) -> HookWish:
    return ListHooks()


def _add(asked: Asked) -> HookWish:
    body = read_json(asked.body, AddBody)
    return AddHook(body.url, _tags(body.events) if body.events is not None else tuple(EVENTS), body.secret)


def _change(asked: Asked) -> HookWish:
    body = read_json(asked.body, ChangeBody)
    tells = None if body.events is None else _tags(body.events)
    return ChangeHook(_named(asked), body.url, tells, body.enabled, body.secret)


def _remove(asked: Asked) -> HookWish:
    return RemoveHook(_named(asked))


def _deliveries(asked: Asked) -> HookWish:
    unknown = sorted(set(asked.query) - PARAMS)
    if unknown:
        raise Invalid(f"Unknown query parameter {unknown[0]}.", param=unknown[0] or None)
    page = _number(asked, "page", 1, PAGE_MAX)
    size = _number(asked, "page_size", PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    return HookDeliveries(_named(asked), limit=size, skip=(page - 1) * size)


def _named(asked: Asked) -> str:
    """The id in the path; what cannot be one is nobody's."""
    return asked.params["id"] if _ID.fullmatch(asked.params["id"]) else ""


def _tags(names: list[str]) -> tuple[str, ...]:
    if not set(names) <= set(NAMES):
        raise Invalid(f"events are of {', '.join(NAMES)}.", param="events")
    return tuple(tag for tag, name in EVENTS.items() if name in names)


def _number(asked: Asked, name: str, default: int, most: int) -> int:
    text = asked.query.get(name, str(default))
    few_digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not few_digits or not 1 <= int(text) <= most:
        raise Invalid(f"{name} is a number from 1 to {most}.", param=name)
    return int(text)


# What they answer


def _shown(hook: Webhook) -> dict[str, Any]:
    return {
        "id": hook.webhook_id,
        "url": hook.url,
        "events": list(dict.fromkeys(EVENTS[tag] for tag in hook.tells)),
        "enabled": hook.enabled,
        "created": hook.created_at_us // US_PER_SECOND,
    }


def _listed(_: Asked, told: HookTold) -> Answer:
    return json_answer(200, {"object": "list", "data": [_shown(hook) for hook in told.hooks]})


def _added(_: Asked, told: HookTold) -> Answer:
    return json_answer(201, _shown(told.hooks[0]) | {"secret": told.secret})


def _changed(_: Asked, told: HookTold) -> Answer:
    return json_answer(200, _shown(told.hooks[0]))


def _removed(_: Asked, __: HookTold) -> Answer:
    return Answer(204, b"")


STATES = {"waiting": "pending", "delivered": "delivered", "dead": "failed"}


def _deliveries_listed(asked: Asked, told: HookTold) -> Answer:
    size = _number(asked, "page_size", PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    rows = [
        {
            "id": row.callback_id,
            "event": EVENTS[row.type],
            "status": STATES[row.state],
            "attempts": row.attempts,
            "error": row.error,
            "created": row.fact_at_us // US_PER_SECOND,
            "last_attempt": None if row.attempted_at_us is None else row.attempted_at_us // US_PER_SECOND,
            "next_attempt": row.due_at_us // US_PER_SECOND if row.state == "waiting" else None,
        }
        for row in told.deliveries
    ]
    page = {"page": _number(asked, "page", 1, PAGE_MAX), "page_size": size, "total": told.total}
    return json_answer(200, {"object": "list", "data": rows} | page)


ROUTES = (
    Hooks("GET", "/api/v1/me/webhooks", _list, _listed),
    Hooks("POST", "/api/v1/me/webhooks", _add, _added),
    Hooks("PUT", "/api/v1/me/webhooks/{id}", _change, _changed),
    Hooks("DELETE", "/api/v1/me/webhooks/{id}", _remove, _removed),
    Hooks("GET", "/api/v1/me/webhooks/{id}/deliveries", _deliveries, _deliveries_listed),
)
