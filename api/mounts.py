"""Whose contract a request is under.

A path under a contract's prefix is that contract's, and any client key of the account is taken there. At the bare root
the contract is a property of the key.
"""

from typing import NamedTuple

from aiohttp import web

from api import native
from api.authentication import Authenticator
from api.contracts import CONTRACTS
from api.contracts.shape import Contract, Operation
from api.exchange import Exchange
from api.refusals import MethodNotAllowed, RevokedKey, Unauthenticated, UnknownRoute, WrongKey
from api.routing import Table


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
"""Where scrapers look: a route of the native API, without its prefix."""
_METRICS_MOUNT = NATIVE._replace(prefix="")


def mounted(path: str) -> Mount | None:
    """The contract whose prefix *path* has; None at the bare root, where only the metrics are always the operator's."""
    if path == METRICS:
        return _METRICS_MOUNT
    return MOUNTS.get(path[1:].partition("/")[0])


async def at_root(authenticator: Authenticator, request: web.BaseRequest, exchange: Exchange) -> Mount:
    """The contract of the key that the request shows, with no prefix.

    Raises:
        UnknownRoute: no key, and no contract has this route.
        Unauthenticated, WrongKey, RevokedKey: in the words of the contract that has it, the first of several.
    """
    headers = request.headers
    shown = (mount.contract.token(headers) for mount in MOUNTS.values())
    text = next((token for token in shown if token is not None), None)
    try:
        exchange.key = await authenticator.holder(text, headers, exchange.now_us)
    except Exception as error:  # whatever it is, it is told in the words of the contract that has the route
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
