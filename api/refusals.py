"""The refusals that only exist over HTTP. With those of ``ledger.errors`` they are all that a contract must word."""

from collections.abc import Sequence
from typing import NamedTuple

from ledger.errors import Refusal


class Standing(NamedTuple):
    """What is left of a budget of requests: *remaining* of *limit* a minute, all of it again at *reset_at_us*."""

    limit: int
    remaining: int
    reset_at_us: int


class Unauthenticated(Refusal):
    """No key was shown."""


class WrongKey(Refusal):
    """The key that was shown opens nothing: unknown, mistyped, or in a form that the contract does not take."""


class RevokedKey(Refusal):
    """The key was good once."""


class Forbidden(Refusal):
    """The key is good, but its role may not do this."""

    def __init__(self, role: str, *, needed: Sequence[str]) -> None:
        super().__init__(f"the key's role is {role}, and this needs {' or '.join(needed)}")


class UnknownRoute(Refusal):
    """Nothing is served at this path."""


class MethodNotAllowed(Refusal):
    """Something is served at this path, but not with this method."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"allowed here: {', '.join(allowed)}")
        self.allowed = allowed


class TooLarge(Refusal):
    """The body is longer than *limit_bytes*."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class Invalid(Refusal):
    """The request cannot be read: *param* names the field at fault, where there is one."""

    def __init__(self, reason: str, *, param: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.param = reason, param


class RateLimited(Refusal):
    """The account, or the address, has asked too often; it may again in *retry_after_seconds*."""

    def __init__(self, standing: Standing, *, retry_after_seconds: int) -> None:
        super().__init__("too many requests")
        self.standing, self.retry_after_seconds = standing, retry_after_seconds


class Unavailable(Refusal):
    """The store is not to be had just now. Nothing was written; the same request may be sent again."""

    def __init__(self, reason: str = "", *, retry_after_seconds: int = 2) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Broken(Refusal):
    """We are at fault. The log line with this request id says how."""
