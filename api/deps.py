"""What a handler needs of the running service."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from api.authentication import Authenticator
from api.bookkeeper import Bookkeeper
from api.callbacks import CallbackSender
from api.connections import Connections
from api.feed import Feed
from api.followers import Followers
from api.limits import Limits
from api.logs import Lines
from api.repeats import Repeats
from api.request_ids import RequestIds
from api.stays import Stays
from api.sweep import Sweeper
from api.traces import Traces
from ledger.catalogue import Catalogue
from ledger.ledger import Ledger
from projections.reconciliation.statement_format import StatementFormat


class Deps(NamedTuple):
    """The live parts, handed to every operation: no globals."""

    ledger: Ledger
    catalogue: Catalogue
    clock: Callable[[], int]
    """Unix microseconds."""
    entropy: Callable[[int], bytes]
    request_ids: RequestIds
    authenticator: Authenticator
    limits: Limits
    repeats: Repeats
    books: Bookkeeper
    callbacks: CallbackSender
    followers: Followers
    sweeper: Sweeper | None
    """None: nothing is swept."""
    feed: Feed
    stays: Stays
    statements: Mapping[str, StatementFormat]
    """How each provider writes its statements; those that are not here write them in our own way."""
    requests: Counter[tuple[str, str, str, int]]
    """How many were answered, by contract, method, route and status."""
    connections: Connections
    traces: Traces | None
    """None: no spans are made."""
    lines: Lines
    """Where the line of each request goes."""
    log: FilteringBoundLogger
    """Bound once, not at every line."""
