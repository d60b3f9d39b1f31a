"""API keys: ``tl_<key id>_<secret><checksum>``, and the rules of issuing and revoking them.

The prefix lets people and secret scanners see what it is, the checksum turns a typing error away without a look-up,
and the key id is public: it may be logged. The secret has 256 random bits, so it needs no slow hash, which would only
be a way to exhaust the service; what is stored is a keyed hash of it. Its key, the pepper, lies in the store unless
one from outside is given; then a stolen file is not enough to make a digest that fits.
"""

import hashlib
import hmac
import re
import zlib
from enum import StrEnum
from typing import TypeAlias

import msgspec

from ledger.errors import UnknownKey
from ledger.events import KeyEvent, KeyIssued, KeyRevoked
from ledger.records import KeyRow
from ledger.streams import stream_of

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS, _SECRET_CHARS, _CHECK_CHARS = 12, 43, 8
ID_BYTES, SECRET_BYTES = 8, 32
_TOKEN = re.compile(rf"tl_([0-9A-Za-z]{{{_ID_CHARS}}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9a-f]{{{_CHECK_CHARS}}})")


class Role(StrEnum):
    """What a key may do."""

    CLIENT = "client"
    """Query and cancel the tasks of its account, in the vendor contracts."""
    WORKER = "worker"
    """Create and report, for all accounts, in the native API."""
    OPERATOR = "operator"
    """What a worker may, and everything else of the native API."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A key as its bearer shows it."""

    key_id: str
    secret: str

    @property
    def text(self) -> str:
        """The key in full, as it is shown once."""
        return f"tl_{self.key_id}_{self.secret}{_checksum(self.key_id, self.secret)}"

    def __repr__(self) -> str:
        return f"Token(key_id={self.key_id!r}, secret=<hidden>)"


def mint(entropy: bytes) -> tuple[Token, str]:
    """A new token and its text, from 40 random bytes."""
    assert len(entropy) == ID_BYTES + SECRET_BYTES
    key_id = _base62(entropy[:ID_BYTES], _ID_CHARS)
    secret = _base62(entropy[ID_BYTES:], _SECRET_CHARS)
    token = Token(key_id=key_id, secret=secret)
    return token, token.text


def parse(text: str) -> Token | None:
    """The token that *text* is, or None when it cannot be one of ours."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    key_id, secret, checksum = match.groups()
    return Token(key_id=key_id, secret=secret) if checksum == _checksum(key_id, secret) else None


def digest(secret: str, *, pepper: bytes) -> str:
    """What is stored of a secret: keyed BLAKE2b (RFC 7693), a microsecond a check."""
    return hashlib.blake2b(secret.encode(), key=pepper[:64], digest_size=32).hexdigest()


def fits(row: KeyRow | None, token: Token, *, pepper: bytes) -> bool:
    """Whether *token* is the key of *row*, dead or alive; an unknown key costs the same work as a wrong one."""
    stored = _NO_DIGEST if row is None else row.digest
    return hmac.compare_digest(digest(token.secret, pepper=pepper), stored)


def opens(row: KeyRow | None, token: Token, *, pepper: bytes, at_us: int) -> bool:
    """Whether *token* is the key of *row*, and alive."""
    return fits(row, token, pepper=pepper) and row is not None and not is_dead(row, at_us)


def is_dead(row: KeyRow, at_us: int) -> bool:
    """Whether the key has been revoked as of *at_us*."""
    return row.revoked_at_us is not None and row.revoked_at_us <= at_us


class IssueKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key for *account*, which speaks *contract* at the bare root."""

    at_us: int
    account: str
    contract: str
    role: Role
    key_id: str
    digest: str


class RevokeKey(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    key_id: str


class RotateKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key in the old one's place; the old one lives on for *overlap_us*."""

    at_us: int
    key_id: str
    new_key_id: str
    digest: str
    overlap_us: int


KeyCommand: TypeAlias = IssueKey | RevokeKey | RotateKey


def decide_key(old: KeyRow | None, command: KeyCommand) -> list[KeyEvent]:
    """The events that *command* causes, given the key that it names.

    Raises:
        UnknownKey: there is no such key, or it is dead.
    """
    match command:
        case IssueKey():
            return [
                KeyIssued(
                    at_us=command.at_us,
                    key_id=command.key_id,
                    role=command.role,
                    contract=command.contract,
                    digest=command.digest,
                )
            ]
        case RevokeKey(key_id=key_id, at_us=at_us):
            _alive(old, key_id, at_us)
            return [KeyRevoked(at_us=at_us, key_id=key_id, revoked_at_us=at_us)]
        case RotateKey(key_id=key_id, at_us=at_us):
            row = _alive(old, key_id, at_us)
            issued = KeyIssued(
                at_us=at_us,
                key_id=command.new_key_id,
                role=row.role,
                contract=row.contract,
                digest=command.digest,
                replaces=key_id,
            )
            until_us = min(at_us + command.overlap_us, row.revoked_at_us or at_us + command.overlap_us)
            return [issued, KeyRevoked(at_us=at_us, key_id=key_id, revoked_at_us=until_us)]


def evolve_key(row: KeyRow | None, event: KeyEvent, *, account: str) -> KeyRow:
    """The key's row after *event*."""
    match event:
        case KeyIssued():
            return KeyRow(
                key_id=event.key_id,
                account=account,
                contract=event.contract,
                role=event.role,
                digest=event.digest,
                issued_at_us=event.at_us,
            )
        case KeyRevoked(revoked_at_us=revoked_at_us):
            assert row is not None, "only an issued key is revoked"
            return msgspec.structs.replace(row, revoked_at_us=revoked_at_us)


def account_stream(account: str) -> bytes:
    """The 16 bytes that name an account's stream of administrative acts."""
    return stream_of(hashlib.sha256(b"task-ledger account\x00" + account.encode()).digest())


def _alive(row: KeyRow | None, key_id: str, at_us: int) -> KeyRow:
    if row is None or is_dead(row, at_us):
        raise UnknownKey(key_id)
    return row


_NO_DIGEST = "0" * 64


def _base62(raw: bytes, width: int) -> str:
    value, chars = int.from_bytes(raw, "big"), []
    for _ in range(width):
        value, digit = divmod(value, 62)
        chars.append(_ALPHABET[digit])
    return "".join(reversed(chars))


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):0{_CHECK_CHARS}x}"
