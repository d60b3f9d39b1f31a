"""Who orders what: accounts of very different size, and the models of the catalogue at their prices.

An account's share falls with its rank, as a power law; each has a contract that it favours. Cheap models are ordered
more often than dear ones. What a contract lets be done to a task is read from its table, so a new vendor takes part.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from random import Random
from typing import Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from api.contracts import CONTRACTS
from api.contracts.shape import Alter, Cancel
from ledger.catalogue import Catalogue, Model
from ledger.commands import CancelPolicy
from ledger.events import Terms
from ledger.keys import ID_BYTES, SECRET_BYTES, mint
from ledger.money import MICROS_PER_CREDIT

RANK_EXPONENT = 1.1
"""How fast an account's share falls with its rank: the largest of 300 orders a fifth of all."""
FAVOURED_SHARE = 0.6
"""Of an account's tasks, those that it orders in the contract that it favours; the others are drawn from all."""
SECONDS_DEFAULT = 30

T = TypeVar("T")


class Offer(NamedTuple):
    """One thing that can be ordered, with all that its create pins, and what may be asked of its tasks."""

    contract: str
    model: str
    resolved_model: str | None
    capability: str
    provider: str
    terms: Terms
    estimated_seconds: int
    cancel: CancelPolicy
    alters: bool
    """Whether its finished tasks may be updated and deleted."""


class Account(NamedTuple):
    """Who orders. *key_id* names a key that was never issued: what is stored of one depends on the store's pepper."""

    name: str
    key_id: str
    favours: str


class Urn(Generic[T]):
    """Things to draw from, each as often as its weight says."""

    def __init__(self, things: Iterable[tuple[T, float]]) -> None:
        pairs = list(things)
        self.things = [thing for thing, _ in pairs]
        self.cum_weights = list(accumulate(weight for _, weight in pairs))

    def draw(self, dice: Random) -> T:
        return dice.choices(self.things, cum_weights=self.cum_weights)[0]


class Portion(NamedTuple):
    """That share of all tasks is one provider's, whatever else would have been ordered."""

    provider: str
    share: float


class Market(NamedTuple):
    """All accounts, all contracts, and what there is to order in each."""

    accounts: Urn[Account]
    contracts: Urn[str]
    offers: dict[str, Urn[Offer]]
    portion: Portion | None
    of_portion: Urn[Offer]
    """What the provider of the portion makes."""

    def order(self, dice: Random) -> tuple[Account, Offer]:
        """Somebody orders something."""
        account = self.accounts.draw(dice)
        if self.portion is not None and dice.random() < self.portion.share:
            return account, self.of_portion.draw(dice)
        contract = account.favours if dice.random() < FAVOURED_SHARE else self.contracts.draw(dice)
        return account, self.offers[contract].draw(dice)


def market(catalogue: Catalogue, dice: Random, *, accounts: int, portion: Portion | None = None) -> Market:
    """The offers of *catalogue*, and as many accounts to order them."""
    by_contract: dict[str, list[Offer]] = {}
    for model in catalogue.models.values():
        by_contract.setdefault(model.contract, []).extend(_offers(catalogue, model))
    contracts = Urn((name, len(offers) ** 0.5) for name, offers in by_contract.items())
    made = [_account(dice, number, contracts.draw(dice)) for number in range(1, accounts + 1)]
    return Market(
        accounts=Urn((account, rank**-RANK_EXPONENT) for rank, account in enumerate(made, start=1)),
        contracts=contracts,
        offers={name: _urn(offers) for name, offers in by_contract.items()},
        portion=portion,
        of_portion=_urn(
            offer
            for offers in by_contract.values()
            for offer in offers
            if portion is not None and offer.provider == portion.provider
        ),
    )


def _urn(offers: Iterable[Offer]) -> Urn[Offer]:
    return Urn((offer, _weight(offer)) for offer in offers)


def _account(dice: Random, number: int, favours: str) -> Account:
    return Account(f"account-{number:03d}", key_id(dice), favours)


def key_id(dice: Random) -> str:
    """The name of an API key."""
    token, _ = mint(dice.randbytes(ID_BYTES + SECRET_BYTES))
    return token.key_id


def _weight(offer: Offer) -> float:
    """A hundred times the price is ordered a tenth as often."""
    price = max(offer.terms.estimated_micros, 1)
    return float((MICROS_PER_CREDIT / price) ** 0.5)


def _offers(catalogue: Catalogue, model: Model) -> Iterator[Offer]:
    """The model in each variant that has a price, or as the one thing that it is."""
    policy, alters = _policy(model.contract), _alters(model.contract)
    terms = catalogue.terms[model.contract, model.name]
    for variant in model.variants or (model.capability,):
        capability, price = variant.partition("/")[0], model.price_of(variant)
        assert price is not None, "its own variants have prices"
        resolved = model.resolves_by.get(capability, model.resolves_to)
        made_by = catalogue.find(model.contract, resolved or model.name) or model
        yield Offer(
            contract=model.contract,
            model=model.name,
            resolved_model=resolved,
            capability=capability,
            provider=made_by.provider,
            terms=replace(terms, estimated_micros=price),
            estimated_seconds=made_by.estimated_seconds or SECONDS_DEFAULT,
            cancel=policy,
            alters=alters,
        )


def _policy(contract: str) -> CancelPolicy:
    return next(one.policy for one in CONTRACTS[contract].operations if isinstance(one, Cancel))


def _alters(contract: str) -> bool:
    return any(isinstance(one, Alter) for one in CONTRACTS[contract].operations)
