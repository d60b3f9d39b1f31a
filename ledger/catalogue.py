"""The model catalogue: what each contract's models cost, how they are billed, and what their cancel costs.

Data in a TOML file, read once. A task pins the terms that it is created under, so a new catalogue changes
nothing that is in flight.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from ledger.events import School, Terms
from ledger.money import parse_credits

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]

DEFAULT = Path(__file__).with_name("catalogue.toml")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the catalogue; amounts are decimal text, as in the file."""

    contract: Text
    name: Text
    capability: Text
    provider: Text
    school: School
    price_credits: str
    estimated_seconds: Seconds | None = None
    resolves_to: Text | None = None
    resolves_by: dict[Text, Text] = {}
    """What it resolves to by capability, for contracts whose route says which is meant."""
    variants: dict[Text, str] = {}
    """Prices by ``capability`` or ``capability/quality``, for contracts that price so."""
    cancellable: bool = True
    point_of_no_return_percent: Percent | None = None
    cancel_credits_per_second: str = "0"
    output_seconds: Seconds = 0

    def __post_init__(self) -> None:
        for amount in (self.price_credits, self.cancel_credits_per_second, *self.variants.values()):
            if parse_credits(amount) is None:
                raise ValueError(f"model {self.name}: {amount!r} is not an amount of credits")
        if self.point_of_no_return_percent is not None and not self.output_seconds:
            raise ValueError(f"model {self.name}: a point of no return needs output_seconds to charge by")

    @property
    def capabilities(self) -> frozenset[str]:
        """What it makes: what it has prices for, or, with one price for all, what it is for."""
        return frozenset(variant.partition("/")[0] for variant in self.variants or {self.capability})

    def price_of(self, variant: str) -> int | None:
        """Micro-credits of one *variant*; None: the model does not come in it."""
        text = self.variants.get(variant) if self.variants else self.price_credits
        return None if text is None else parse_credits(text)

    def terms(self, rate_version: str) -> Terms:
        """The terms that a task of this model pins, at the model's own price."""
        price, rate = parse_credits(self.price_credits), parse_credits(self.cancel_credits_per_second)
        assert price is not None, "checked when it was read"
        assert rate is not None, "the same"
        return Terms(
            school=self.school,
            rate_version=rate_version,
            estimated_micros=price,
            cancellable=self.cancellable,
            point_of_no_return_percent=self.point_of_no_return_percent,
            cancel_rate_micros_per_second=rate,
            output_seconds=self.output_seconds,
        )


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Text
    model: list[Model]


class Catalogue(NamedTuple):
    """Models under one version, which tasks pin as their ``rate_version``."""

    version: str
    models: dict[tuple[str, str], Model]
    """By contract and name."""
    terms: dict[tuple[str, str], Terms]
    """The same, at their own prices."""

    @property
    def providers(self) -> frozenset[str]:
        """Who makes what the models make."""
        return frozenset(model.provider for model in self.models.values())

    def find(self, contract: str, name: str) -> Model | None:
        """The contract's model of that name."""
        return self.models.get((contract, name))


def read(path: Path = DEFAULT) -> Catalogue:
    """The catalogue in the file.

    Raises:
        ValueError: it is no TOML, a field is wrong or unknown, or a model is there twice; says which.
        OSError: it cannot be read.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        file = msgspec.convert(raw, _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    models: dict[tuple[str, str], Model] = {}
    for model in file.model:
        if models.setdefault((model.contract, model.name), model) is not model:
            raise ValueError(f"{path}: {model.contract} has model {model.name} twice")
    for model in file.model:
        for name in model.resolves_by.values():
            if (model.contract, name) not in models:
                raise ValueError(f"{path}: {model.contract} has no model {name} for {model.name} to resolve to")
    return Catalogue(file.version, models, {name: model.terms(file.version) for name, model in models.items()})
