"""What a vendor's file says of itself: a table of operations, a table of refusals, and pure functions.

The shell (``api.service``) authenticates, finds the row, carries out what the row asks for, and sends what the row's
answer makes of it. Nothing here knows aiohttp, and nothing in the shell knows a vendor.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from api.contracts.hooks import HookTold, HookWish
from api.contracts.telling import Telling
from api.refusals import Standing
from api.routing import Params
from ledger.catalogue import Catalogue
from ledger.commands import CancelPolicy, Delete, RequestUpdate
from ledger.errors import Refusal
from ledger.events import School
from ledger.ids import Spelling, TaskId
from ledger.keys import Role
from ledger.ledger import Page, Wanted
from ledger.records import AccountRow
from ledger.task import Task
from ledger.times import US_PER_SECOND

if TYPE_CHECKING:
    from api.deps import Deps
    from api.stays import Stay

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

BODY_MAX_BYTES = 64 * 1024
"""Of a request that only names things; where a row says nothing else."""
CONTENT_MAX_BYTES = 1024 * 1024
"""Of a request that brings a customer's content along."""

_encoder = msgspec.json.Encoder()


class Asked(NamedTuple):
    """A request, as far as a contract reads it."""

    params: Params
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base_url: str
    """Scheme, host and the contract's prefix: what the client has in front of the contract's own paths."""
    request_id: str
    account: str
    key_id: str
    now_us: int
    log_id: str
    """Which log this is: cursors are bound to it."""
    is_gone: Callable[[], bool] = lambda: False
    """Whether the client has left meanwhile."""


class Told(NamedTuple):
    """What a request came to: the task, and whether the request changed it or repeats an earlier one."""

    task: Task
    appended: bool = False
    replayed: bool = False


class Answer(NamedTuple):
    """A response. ``headers`` are those that the contract adds; the shell adds the common ones."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Streamed(NamedTuple):
    """A response that is a stream of server-sent events: each frame is some of them, until there are no more."""

    stay: "Stay"
    """Its place, which is given back at its end."""
    frames: AsyncGenerator[bytes, None]
    farewell: Callable[[str], bytes]
    """The last frame, which tells why it ends before its time."""
    status: int = 200


def json_answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Answer:
    """*body* as JSON."""
    return Answer(status, _encoder.encode(body), JSON, headers or {})


class ByTask(NamedTuple):
    """The task with this id; None when the id is spelled in no way of this contract: then there is no such task."""

    task: TaskId | None


OUT_TASK_ID = "out_task_id"
"""The operation under which a create claims the customer's own id."""


class ByKey(NamedTuple):
    """The task that the account created under this key of its own."""

    operation: str
    key: str


Target: TypeAlias = ByTask | ByKey


class Idempotency(NamedTuple):
    """The key that a request brought, for the shell to make a claim of."""

    operation: str
    key: str
    fingerprint: str
    window_us: int | None


class Wish(NamedTuple):
    """A cancel, as it was asked for."""

    target: Target
    reason: str | None = None
    idempotency: Idempotency | None = None


class Read(NamedTuple):
    """A query: whose task, and how it is shown."""

    method: str
    path: str
    target: Callable[[Asked], Target]
    answer: Callable[[Asked, Told], Answer]
    """Kept with the task, so of the query it gets only those parameters that it varies by."""
    body_max_bytes: int = BODY_MAX_BYTES
    varies_by: tuple[str, ...] = ()


class Follow(NamedTuple):
    """A stream of a task's states: whose, what each is sent as, and how its end is told when it comes too soon."""

    method: str
    path: str
    target: Callable[[Asked], Target]
    frame: Callable[[Task], bytes]
    """Kept with the task, for all who follow it. A state that looks like the one before is not sent."""
    farewell: Callable[[str], bytes]
    body_max_bytes: int = BODY_MAX_BYTES


class Cancel(NamedTuple):
    """A cancel: of what, by which row of the cancel table, and how its outcome is shown."""

    method: str
    path: str
    wish: Callable[[Asked], Wish]
    policy: CancelPolicy
    answer: Callable[[Asked, Told], Answer]
    body_max_bytes: int = BODY_MAX_BYTES


class Order(NamedTuple):
    """A task, as it was ordered in a vendor's words."""

    model: str
    """As the catalogue names it; the shell refuses one that it does not have."""
    input: dict[str, Any]
    metadata: dict[str, Any]
    capability: str | None = None
    """None: the model's own."""
    estimated_micros: int | None = None
    """None: the model's price."""
    resolved_model: str | None = None
    """None: what the model resolves to, if to anything."""
    out_task_id: str | None = None
    callback_url: str | None = None
    keys: tuple[Idempotency, ...] = ()


class Submit(NamedTuple):
    """A create: what is ordered, and how the new task is shown, or, replayed, the one that was created first."""

    method: str
    path: str
    order: Callable[[Catalogue, Asked], Order]
    answer: Callable[[Asked, Told], Answer]
    body_max_bytes: int = CONTENT_MAX_BYTES


class Alter(NamedTuple):
    """A change of a task other than a cancel: of which, by which command, and how its outcome is shown.

    The command is made from the task as it was read; with its ``expected_version`` set, it is made again from a fresh
    read when the task has moved on in between.
    """

    method: str
    path: str
    target: Callable[[Asked], Target]
    command: Callable[[Asked, Task], RequestUpdate | Delete]
    answer: Callable[[Asked, Told], Answer]
    body_max_bytes: int = CONTENT_MAX_BYTES


class Browse(NamedTuple):
    """A list: which of the account's tasks, and how the page is shown."""

    method: str
    path: str
    wanted: Callable[[Asked], Wanted]
    answer: Callable[[Asked, Page], Answer]
    body_max_bytes: int = BODY_MAX_BYTES


class Hooks(NamedTuple):
    """A route for the account's webhooks: what is wished of them, and how what came of it is shown."""

    method: str
    path: str
    wish: Callable[[Asked], HookWish]
    answer: Callable[[Asked, HookTold], Answer]
    body_max_bytes: int = BODY_MAX_BYTES


class Act(NamedTuple):
    """A route of the native API, carried out by a function of its own."""

    method: str
    path: str
    run: "Callable[[Deps, Asked], Awaitable[Answer | Streamed]]"
    operator_only: bool = False
    body_max_bytes: int = BODY_MAX_BYTES


class Balance(NamedTuple):
    """What the account may spend, and how that is shown."""

    method: str
    path: str
    answer: Callable[[AccountRow], Answer]
    body_max_bytes: int = BODY_MAX_BYTES


class Open(NamedTuple):
    """A vendor's health route: answered to whoever asks, with a key or without, once the store has been read."""

    method: str
    path: str
    answer: Callable[[], Answer]
    body_max_bytes: int = BODY_MAX_BYTES


KeyedOperation: TypeAlias = Read | Follow | Cancel | Submit | Alter | Browse | Balance | Hooks | Act
"""What is done for an account, whose key must be shown."""
Operation: TypeAlias = KeyedOperation | Open


class Refused(NamedTuple):
    """What some vendors word a refusal by, beside the refusal itself."""

    method: str
    request_id: str


class Contract(NamedTuple):
    """One vendor's HTTP shape."""

    name: str
    spelling: Spelling
    school: School
    """How a model is billed that the catalogue does not have, if its create names a price."""
    roles: frozenset[Role]
    """Whose keys are taken."""
    operations: tuple[Operation, ...]
    token: Callable[[Mapping[str, str]], str | None]
    """The key's text in the headers, in the form that this vendor takes; None when there is none."""
    gone: Callable[[Task, int], bool]
    """Whether the task is past what the vendor keeps, at a time in Unix microseconds: it reads as not found."""
    refuse: Callable[[Refusal, Refused], Answer]
    limits: Callable[[Standing], bytes] = lambda _: b""
    """The header lines that tell how many requests are left, as they are sent, for vendors that have such."""
    quota: Callable[[AccountRow], bytes] | None = None
    """The header line that tells what credit a limited account has left, for vendors that have one."""
    telling: Telling | None = None
    """How the addresses are told that tasks bring along; None: tasks of this contract have none."""
    webhooks: Telling | None = None
    """How the webhooks of an account are told, for vendors that have such."""
    takes_odd_queries: bool = False
    """Whether of a parameter that is given twice the first counts, and what is not UTF-8 is passed over, for vendors
    that pass over parameters that they do not know."""
    key_headers: tuple[str, ...] = ("Authorization",)
    """All headers that `token` reads."""


CLIENTS = frozenset({Role.CLIENT})


def x_rate_limit(standing: Standing) -> bytes:
    """The three ``X-RateLimit-*`` headers, the reset in Unix seconds. Bytes, for every answer has other ones."""
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
        standing.limit,
        standing.remaining,
        -(-standing.reset_at_us // US_PER_SECOND),
    )


def keep_for(retention_us: int) -> Callable[[Task, int], bool]:
    """`Contract.gone` of a vendor that keeps a task for *retention_us* after its end."""

    def gone(task: Task, now_us: int) -> bool:
        finished_at_us = task.run.finished_at_us
        return finished_at_us is not None and now_us - finished_at_us >= retention_us

    return gone


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of ``Authorization: Bearer <token>``."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def by_path(spelling: Spelling) -> Callable[[Asked], ByTask]:
    """Read the id out of the path's ``{id}``."""
    return lambda asked: ByTask(spelling.parse(asked.params["id"]))
