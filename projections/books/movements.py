"""Money as the books see it: one movement for each event that moves some, posted in double entry. Pure.

The chart of accounts, seen from whoever runs the ledger. What a customer has is owed to it, so its account is a
liability; it falls below zero for customers who pay afterwards.

======================== ========= =======================================
account                  kind      holds
======================== ========= =======================================
customer                 liability what the customer has, or (< 0) owes
held                     liability what is held for tasks that have not ended
revenue                  income    what was charged, less what was given back
provider cost            expense   what providers have billed
payable                  liability what we owe providers
======================== ========= =======================================

Each posting takes an amount out of one account and puts it into another, so that the books balance by construction.
An amount that nobody has cannot show in them: that is what the audit and the reconciliation are for.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from ledger.events import School


class Kind(StrEnum):
    """What a movement is: the tag of its event."""

    HELD = "held"
    RELEASED = "released"
    CHARGED = "charged"
    REFUNDED = "refunded"
    BILLED = "provider-billed"
    CREDITED = "provider-credited"


COSTS = frozenset({Kind.BILLED, Kind.CREDITED})
"""Movements between us and a provider; the others are between us and a customer."""


class Purpose(NamedTuple):
    """What money is for, the same in all movements of a task: the dimensions of the books.

    What a provider bills for no task of ours has no account, no contract and no school, and the model that it names.
    """

    account: str
    contract: str
    model: str
    provider: str
    school: str


class Book(StrEnum):
    """An account of the chart."""

    CUSTOMER = "customer"
    HELD = "held"
    REVENUE = "revenue"
    COST = "cost"
    PAYABLE = "payable"


class Posting(NamedTuple):
    """Which account a movement takes its amount from, and which gets it."""

    debit: Book
    credit: Book


def posting(kind: Kind, school: str) -> Posting:
    """How a movement is booked. Only a charge depends on the billing school: what was held is already set aside."""
    match kind:
        case Kind.HELD:
            return Posting(Book.CUSTOMER, Book.HELD)
        case Kind.RELEASED:
            return Posting(Book.HELD, Book.CUSTOMER)
        case Kind.CHARGED:
            return Posting(Book.HELD if school == School.HOLD else Book.CUSTOMER, Book.REVENUE)
        case Kind.REFUNDED:
            return Posting(Book.REVENUE, Book.CUSTOMER)
        case Kind.BILLED:
            return Posting(Book.COST, Book.PAYABLE)
        case Kind.CREDITED:
            return Posting(Book.PAYABLE, Book.COST)


class Sums(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Amounts moved, in micro-credits, each the sum of all movements of a kind; *captured* is charged out of holds."""

    movements: int = 0
    held_micros: int = 0
    released_micros: int = 0
    charged_micros: int = 0
    captured_micros: int = 0
    refunded_micros: int = 0
    billed_micros: int = 0
    credited_micros: int = 0

    @property
    def net_micros(self) -> int:
        """Revenue: what was charged, less what was given back."""
        return self.charged_micros - self.refunded_micros

    @property
    def open_micros(self) -> int:
        """What is held still."""
        return self.held_micros - self.released_micros - self.captured_micros

    @property
    def customer_micros(self) -> int:
        """What these movements gave the customer; less than 0: took."""
        return (
            self.released_micros + self.refunded_micros + self.captured_micros - self.held_micros - self.charged_micros
        )

    @property
    def cost_micros(self) -> int:
        """What providers have billed, less what they gave back."""
        return self.billed_micros - self.credited_micros

    @property
    def margin_micros(self) -> int:
        """What is left of the revenue."""
        return self.net_micros - self.cost_micros

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


NO_SUMS = Sums()
