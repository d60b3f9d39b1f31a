"""How often an account may ask, and how many tasks it may have under way: what its tier in the configuration says.

Requests have a budget a minute for each class, and failed authentication has one.

Each budget is a leaky bucket in one number, the time at which it will be empty again (GCRA): a minute's worth may be
spent at once, and comes back evenly. Budgets are those of clients: workers and operators are the gateway's own, and a
limit on them would only hold up the truth. They are kept in memory, per process, and never in the ledger: what is
limited is load, not money.

Failed authentication is counted by address, and only it: who shows a key that opens is never held up by a stranger
behind the same address.

How many tasks are under way is not counted here: two creates at once must not both take the last place, so it is the
writer that counts, and the cap travels to it inside the command (`ledger.credit.admit`). It holds for whoever asks for
the account, workers too: it is about the account's tasks, as its credit is.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from api.contracts.shape import Alter, Balance, Browse, Cancel, Follow, Hooks, Operation, Read, Submit
from api.refusals import RateLimited, Standing
from ledger.times import US_PER_SECOND

WINDOW_US = 60 * US_PER_SECOND
BUDGETS_MAX = 100_000
"""Budgets that are kept; those that are whole again need not be."""
PER_MINUTE = 100_000
FAILURES_PER_MINUTE = 300

PerMinute = Annotated[int, msgspec.Meta(ge=1, le=60_000_000)]
AtOnce = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


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
    Follow: Kind.READ,
    Browse: Kind.READ,
    Balance: Kind.READ,
    Hooks: Kind.READ,
    Submit: Kind.CREATE,
    Cancel: Kind.CANCEL,
    Alter: Kind.CANCEL,
}


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests a minute, by class, and tasks at once."""

    read: PerMinute = PER_MINUTE
    create: PerMinute = PER_MINUTE
    cancel: PerMinute = PER_MINUTE
    failed: PerMinute = FAILURES_PER_MINUTE
    tasks_max: AtOnce | None = None
    """Tasks under way: one more is refused. None: any number."""


class _Budget:
    """Requests of one class and one owner."""

    __slots__ = ("each_us", "empty_at_us", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.each_us = WINDOW_US // limit
        """How long it takes for one to come back."""
        self.empty_at_us = 0
        """When all of them will have."""

    def spend(self, now_us: int) -> Standing:
        """Take one.

        Raises:
            RateLimited: there is none.
        """
        limit, each_us = self.limit, self.each_us
        spent_us = self.empty_at_us - now_us
        if not 0 < spent_us <= each_us * limit:  # all has come back, or the clock was set back: then it is forgiven
            spent_us = 0
        wait_us = spent_us + each_us - each_us * limit
        if wait_us > 0:
            standing = Standing(limit, 0, now_us + spent_us)
            raise RateLimited(standing, retry_after_seconds=-(-wait_us // US_PER_SECOND))
        spent_us += each_us
        empty_at_us = self.empty_at_us = now_us + spent_us
        return Standing(limit, limit - -(-spent_us // each_us), empty_at_us)

    def told(self, now_us: int) -> Standing:
        """What is left of it."""
        spent_us = self.empty_at_us - now_us
        if not 0 < spent_us <= self.each_us * self.limit:  # as above
            spent_us = 0
        return Standing(self.limit, self.limit - -(-spent_us // self.each_us), now_us + spent_us)


class Limits:
    """What each account's tier allows it, and what is left of each budget."""

    def __init__(self, default: Tier, accounts: Mapping[str, Tier]) -> None:
        self._default, self._accounts = default, accounts
        self._budgets: dict[tuple[str, Kind], _Budget] = {}

    def spend(self, account: str, operation: type[Operation], now_us: int) -> Standing:
        """Take one request of *account* out of its budget.

        Raises:
            RateLimited: there is nothing left in it.
        """
        owner = (account, _KINDS[operation])
        budget = self._budgets.get(owner) or self._open(owner, self._tier(account), now_us)
        return budget.spend(now_us)

    def tasks_max(self, account: str) -> int | None:
        """How many tasks *account* may have under way; None: any number."""
        return self._tier(account).tasks_max

    def reads(self, account: str, now_us: int) -> Standing:
        """What *account* has left to read with: what is told of a request that cost it nothing."""
        return self._left((account, Kind.READ), self._tier(account).read, now_us)

    def address(self, address: str, now_us: int) -> Standing:
        """What *address* has left to fail with: all that there is to tell of a request that is no account's."""
        return self._left((address, Kind.FAILED), self._default.failed, now_us)

    def _tier(self, account: str) -> Tier:
        return self._accounts.get(account, self._default)

    def _left(self, owner: tuple[str, Kind], limit: int, now_us: int) -> Standing:
        budget = self._budgets.get(owner)
        return Standing(limit, limit, now_us) if budget is None else budget.told(now_us)

    def fail(self, address: str, now_us: int) -> Standing:
        """Count a failed authentication.

        Raises:
            RateLimited: there were too many from this address.
        """
        owner = (address, Kind.FAILED)
        return (self._budgets.get(owner) or self._open(owner, self._default, now_us)).spend(now_us)

    def _open(self, owner: tuple[str, Kind], tier: Tier, now_us: int) -> _Budget:
        if len(self._budgets) >= BUDGETS_MAX:
            self._tidy(now_us)
        limit: int = getattr(tier, owner[1])
        budget = self._budgets[owner] = _Budget(limit)
        return budget

    def _tidy(self, now_us: int) -> None:
        """Forget the budgets that are whole; should nearly all be in use, the older half too."""
        kept = {owner: budget for owner, budget in self._budgets.items() if budget.empty_at_us > now_us}
        if len(kept) > BUDGETS_MAX // 2:
            kept = dict([*kept.items()][len(kept) // 2 :])
        self._budgets = kept
