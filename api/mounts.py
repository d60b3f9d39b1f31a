"""Whose contract a request is under.

A path under a contract's prefix is that contract's, and any client key of the account is taken there. At the bare root
the contract is a property of the key.
"""

from typing import NamedTuple

from aiohttp import web

from api import native
from api.callers import Callers
from api.contracts import CONTRACTS
from api.contracts.shape import Contract, Operation
from api.refusals import MethodNotAllowed, RevokedKey, Standing, Unauthenticated, UnknownRoute, WrongKey
from api.routing import Table
from ledger.errors import Refusal
from ledger.records import AccountRow, KeyRow


class Mount(NamedTuple):
    """A contract and where its routes are."""

    contract: Contract
    table: Table[Operation]
    prefix: str


def mount(contract: Contract) -> Mount:
    """The contract under its prefix, which is its name."""
    return Mount(contract, Table(contract.operations), f"/{contract.name}")


MOUNTS = {contract.name: mount(contract) for contract in (*CONTRACTS.values(), native.CONTRACT)}
NATIVE = MOUNTS[native.CONTRACT.name]
METRICS = "/metrics"
"""Where scrapers look."""
_AT_ROOT = NATIVE._replace(prefix="")


class Exchange:
    """One request while it is worked on: what its answer is worded by, and what its log line tells."""

    __slots__ = ("contract", "credit", "key", "mark", "refusal", "request_id", "route", "standing")

    def __init__(self, request_id: str, mark: bytes) -> None:
        self.request_id = request_id
        self.mark = mark
        self.contract = NATIVE.contract
        self.route: str | None = None
        self.key: KeyRow | None = None
        self.refusal: Refusal | None = None
        self.standing: Standing | None = None
        self.credit: AccountRow | None = None
        """What the key's account may spend, as it was when the request came: for when the store can tell no more."""


def mounted(path: str) -> Mount | None:
    """The contract whose prefix *path* has; None at the bare root, where only the metrics are always the operator's."""
    if path == METRICS:
        return _AT_ROOT
    return MOUNTS.get(path[1:].partition("/")[0])


async def at_root(callers: Callers, request: web.BaseRequest, exchange: Exchange, now_us: int) -> Mount:
    """The contract of the key that the request shows, with no prefix.

    Raises:
        UnknownRoute: no key, and no contract has this route.
        Unauthenticated, WrongKey, RevokedKey: in the words of the contract that has it, the first of several.
    """
    headers = request.headers
    shown = (mount.contract.token(headers) for mount in MOUNTS.values())
    text = next((token for token in shown if token is not None), None)
    try:
        exchange.key = await callers.holder(text, headers, now_us)
    except Exception as error:
        owner = _owner(request.method, request.rel_url.raw_path)
        if owner is not None:
            exchange.contract = owner.contract
        elif isinstance(error, Unauthenticated | WrongKey | RevokedKey):
            raise UnknownRoute from None
        raise
    mount = MOUNTS[exchange.key.contract]
    if mount.contract.token(headers) is None:
        exchange.contract = mount.contract
        raise WrongKey  # right, but in a form that its contract does not take
    return mount._replace(prefix="")


def _owner(method: str, path: str) -> Mount | None:
    """The first vendor that serves *path*, with *method* if any does."""
    other_method = None
    for name in CONTRACTS:
        try:
            MOUNTS[name].table.match(method, path)
        except MethodNotAllowed:
            other_method = other_method or MOUNTS[name]
        except UnknownRoute:
            continue
        else:
            return MOUNTS[name]
    return other_method
