"""A request on its way to an answer: what has been found out about it so far."""

from api import native
from api.refusals import Standing
from ledger.errors import Refusal
from ledger.records import AccountRow, KeyRow


class Exchange:
    """One request while it is worked on: what its answer is worded by, and what its log line tells."""

    __slots__ = ("contract", "credit", "key", "mark", "now_us", "refusal", "request_id", "route", "standing")

    def __init__(self, request_id: str, mark: bytes, *, now_us: int) -> None:
        self.request_id = request_id
        self.mark = mark
        """The digest of its credentials, as `Authenticator.mark` makes it."""
        self.now_us = now_us
        """When it came, in Unix microseconds: all that it does is done as of then."""
        self.contract = native.CONTRACT
        """Whose words its answer is in; the native API's until the route or the key says otherwise."""
        self.route: str | None = None
        """The row's path, with its placeholders; None: no row was found."""
        self.key: KeyRow | None = None
        self.refusal: Refusal | None = None
        self.standing: Standing | None = None
        """What is left of the budget that it was charged to."""
        self.credit: AccountRow | None = None
        """What the key's account may spend, as it was when the request came: for when the store can tell no more."""
