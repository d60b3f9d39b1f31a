"""Authentication: whose API key a request shows, and whether that key may do what is asked.

Credentials that have opened a key are recognised by a digest of what was sent, for as long as the keyring has the key
at hand: in a hot loop that takes 0.4 us beside the digest's 1.3, and taking them apart and checking them anew 3.4.
"""

from collections.abc import Iterable, Mapping

from aiohttp import hdrs

from api.contracts.shape import Act, Contract, Operation
from api.refusals import Forbidden, RevokedKey, Unauthenticated, WrongKey
from ledger.keyring import Keyring
from ledger.keys import Role, parse
from ledger.records import KeyRow

CREDENTIALS_MAX = 10_000
"""Digests that are remembered; when there are more, all are forgotten and found anew."""


class Authenticator:
    """Finds the key behind the credentials of a request, and remembers by a digest which ones it has found."""

    def __init__(self, keys: Keyring, contracts: Iterable[Contract]) -> None:
        self._keys = keys
        self._headers = tuple(dict.fromkeys(name for contract in contracts for name in contract.key_headers))
        self._opened: dict[tuple[bytes, str], str] = {}
        """Key ids, by the mark of the credentials and the contract that read them."""

    def mark(self, headers: Mapping[str, str]) -> bytes:
        """A digest of the credentials as they were sent: of all that any contract's `token` reads."""
        return self._keys.mark("\n".join([headers.get(name, "") for name in self._headers]))

    async def identify(self, contract: Contract, headers: Mapping[str, str], mark: bytes, now_us: int) -> KeyRow:
        """The live key that *contract* finds in the headers.

        Raises:
            Unauthenticated: no key was shown at all.
            WrongKey, RevokedKey: one was, and it opens nothing.
            StorageError: the store could not be read.
        """
        known = self._opened.get((mark, contract.name))
        key = None if known is None else self._keys.known(known, at_us=now_us)
        if key is None:
            key = await self.holder(contract.token(headers), headers, now_us)
            if len(self._opened) >= CREDENTIALS_MAX:
                self._opened.clear()
            self._opened[mark, contract.name] = key.key_id
        return key

    async def holder(self, text: str | None, headers: Mapping[str, str], now_us: int) -> KeyRow:
        """The live key that *text* is.

        Raises:
            Unauthenticated, WrongKey, RevokedKey, StorageError: as `identify`.
        """
        if text is None:
            raise WrongKey if headers.get(hdrs.AUTHORIZATION, "").strip() else Unauthenticated
        token = parse(text)
        if token is None:
            raise WrongKey
        row = await self._keys.holder(token, at_us=now_us)
        if row is None:
            raise RevokedKey if await self._keys.was_revoked(token) else WrongKey
        return row


def permit(contract: Contract, operation: Operation, key: KeyRow) -> None:
    """Refuse what this key may not do.

    Raises:
        Forbidden: its role is none that *contract* takes, or too low for *operation*.
    """
    if key.role not in contract.roles:
        raise Forbidden(key.role, needed=sorted(contract.roles))
    if isinstance(operation, Act) and operation.operator_only and key.role != Role.OPERATOR:
        raise Forbidden(key.role, needed=[Role.OPERATOR])
