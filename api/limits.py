"""How often an account may ask: a budget a minute for each class of request, and one for failed authentication.

Each budget is a leaky bucket in one number, the time at which it will be empty again (GCRA): a minute's worth may be
spent at once, and comes back evenly. Budgets are those of clients: workers and operators are the gateway's own, and a
limit on them would only hold up the truth. They are kept in memory, per process, and never in the ledger: what is
limited is load, not money.

Failed authentication is counted by address, and only it: who shows a key that opens is never held up by a stranger
behind the same address.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from api.contracts.shape import Alter, Browse, Cancel, Operation, Read, Submit
from api.refusals import RateLimited, Standing
from ledger.times import US_PER_SECOND

WINDOW_US = 60 * US_PER_SECOND
BUDGETS_MAX = 100_000
"""Budgets that are kept; those that are whole again need not be."""
PER_MINUTE = 100_000
FAILURES_PER_MINUTE = 300

PerMinute = Annotated[int, msgspec.Meta(ge=1, le=60_000_000)]


class Kind(StrEnum):
    """A class of requests with a budget of its own."""

    READ = "read"
    CREATE = "create"
    CANCEL = "cancel"
    """And whatever else changes a task."""
    FAILED = "failed"
    """Authentication that failed, by address."""


_KINDS: Mapping[type[Operation], Kind] = {
    Read: Kind.READ,
    Browse: Kind.READ,
    Submit: Kind.CREATE,
    Cancel: Kind.CANCEL,
    Alter: Kind.CANCEL,
}


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests a minute, by class."""

    read: PerMinute = PER_MINUTE
    create: PerMinute = PER_MINUTE
    cancel: PerMinute = PER_MINUTE
    failed: PerMinute = FAILURES_PER_MINUTE


class _Budget(NamedTuple):
    owner: str
    kind: Kind


class Limits:
    """What is left of each budget."""

    def __init__(self, default: Tier, accounts: Mapping[str, Tier]) -> None:
        self._default, self._accounts = default, accounts
        self._empty_at_us: dict[_Budget, int] = {}

    def spend(self, account: str, operation: type[Operation], now_us: int) -> Standing:
        """Take one request of *account* out of its budget.

        Raises:
            RateLimited: there is nothing left in it.
        """
        return self._spend(_Budget(account, _KINDS[operation]), self._accounts.get(account, self._default), now_us)

    def fail(self, address: str, now_us: int) -> Standing:
        """Count a failed authentication.

        Raises:
            RateLimited: there were too many from this address.
        """
        return self._spend(_Budget(address, Kind.FAILED), self._default, now_us)

    def _spend(self, budget: _Budget, tier: Tier, now_us: int) -> Standing:
        limit: int = getattr(tier, budget.kind)
        each_us = WINDOW_US // limit
        before_us = max(self._empty_at_us.get(budget, 0), now_us)
        after_us = before_us + each_us
        if after_us - now_us > each_us * limit:
            left_us = before_us - now_us
            standing = Standing(limit, 0, before_us)
            raise RateLimited(standing, retry_after_seconds=-(-(left_us + each_us - each_us * limit) // US_PER_SECOND))
        if len(self._empty_at_us) >= BUDGETS_MAX and budget not in self._empty_at_us:
            self._tidy(now_us)
        self._empty_at_us[budget] = after_us
        return Standing(limit, limit - (-(-(after_us - now_us) // each_us)), after_us)

    def _tidy(self, now_us: int) -> None:
        """Forget the budgets that are whole; should all be in use, the oldest half."""
        kept = {budget: at_us for budget, at_us in self._empty_at_us.items() if at_us > now_us}
        while len(kept) >= BUDGETS_MAX:
            kept = dict([*kept.items()][BUDGETS_MAX // 2 :])
        self._empty_at_us = kept
