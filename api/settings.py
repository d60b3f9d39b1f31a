"""Every setting of the service, with its default: read once, here, from a TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from api.callback_lines import Bounds
from api.callbacks import Calls
from api.connections import Allowance
from api.contracts import CONTRACTS
from api.egress import Egress
from api.limits import Limits, Tier
from api.stays import StayLimits
from ledger.catalogue import Catalogue
from ledger.catalogue import read as read_catalogue
from ledger.ledger import BATCH_MAX, QUEUE_MAX, VIEWS_MAX_BYTES
from ledger.silence import Patience
from projections.reconciliation.statement_format import StatementFormat

Count = Annotated[int, msgspec.Meta(ge=1)]


class CallbackSettings(Egress, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where callbacks may go, and how many may be under way at once."""

    in_all_max: Count = 512
    account_max: Count = 64
    receiver_max: Count = 16
    """To one scheme, host and port, of one account."""

    def calls(self) -> Calls:
        return Calls(self, Bounds(self.in_all_max, self.account_max, self.receiver_max))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration file's fields; the units are in the names."""

    catalogue: str | None = None
    """Path of a model catalogue to use in place of the one that comes along; a relative one begins at this file."""
    queue_max: Count = QUEUE_MAX
    """Commands that may wait for a commit; one more is refused with 503."""
    batch_max: Count = BATCH_MAX
    """Commands that share a commit."""
    views_max_bytes: Count = VIEWS_MAX_BYTES
    """Memory for tasks kept at hand."""
    traces: bool = False
    """Whether a span is made of each request; needs the extra `otel`."""
    drain_seconds: Count = 30
    """How long a stopping service waits for the requests that it has taken."""

    connections: Allowance = Allowance()
    """How many connections there may be, and how long each may keep us waiting."""
    silence: Patience = Patience()
    """How long a running task may go without a report before it is stalled."""

    limits: Tier = Tier()
    """How often an account may ask, a minute, and how many tasks it may have under way, unless it has a tier."""
    tiers: dict[str, Tier] = {}
    accounts: dict[str, str] = {}
    """The tier of an account, by its name."""

    waiting: StayLimits = StayLimits()
    """How many may wait or follow at a time, and for how long."""
    callbacks: CallbackSettings = CallbackSettings()

    statements: dict[str, StatementFormat] = {}
    """How a provider writes its statements, by its name."""

    def __post_init__(self) -> None:
        for account, tier in self.accounts.items():
            if tier not in self.tiers:
                raise ValueError(f"account {account} is in tier {tier!r}, and there is no [tiers.{tier}]")
        for name in self.silence.of:
            if name.partition("/")[0] not in CONTRACTS:
                raise ValueError(f"silence.of names {name!r}, which begins with no contract: {', '.join(CONTRACTS)}")

    def budgets(self) -> Limits:
        """What each account's tier allows it; its budgets are still whole."""
        return Limits(self.limits, {account: self.tiers[tier] for account, tier in self.accounts.items()})

    def models(self) -> Catalogue:
        """The catalogue in force.

        Raises:
            ValueError, OSError: as `ledger.catalogue.read`.
        """
        return read_catalogue(Path(self.catalogue)) if self.catalogue else read_catalogue()


def read(path: Path | None) -> Settings:
    """The settings in the file; the defaults without one.

    Raises:
        ValueError: it is no TOML, or a field is wrong or unknown; says which.
        OSError: it cannot be read.
    """
    if path is None:
        return Settings()
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found if found.catalogue is None else replace(found, catalogue=str(path.parent / found.catalogue))
