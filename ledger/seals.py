"""Seals: how content is stored so that it can be erased from a log that is never rewritten.

All content of a task is sealed (AES-256-GCM, NIST SP 800-38D) under a random key of the task's own, kept in a table
beside the log. The chain covers the sealed bytes, so the task is erased by destroying its key: no hash, no proof and no
figure changes, nor does any other task. Alternative beaten: to chain a digest of the content and empty its column. The
log would have to bear an UPDATE, and whoever holds a copy of it, the text. The price: a key lost is content lost, so
`verify` misses it; and the length of what was erased stays.

The nonce is random. A count of the task's events would be unique among those that are *kept*, but not among those that
are *written*: a batch that is decided anew, a commit that the disk refused halfway, a backup that is restored and goes
on, all seal another text under the same count. Two texts under one nonce give each other away; at 96 random bits
and a key for every task, that never happens.

What was sealed for one event opens at no other: task and version are bound in. Measured with a payload of 300 bytes:
1.8 us, half of which makes the cipher (ChaCha20-Poly1305: 2.0), so no cipher is kept in memory. With key, row and nonce
a create asks 6 us more of the interpreter.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import DamagedError

KEY_BYTES = 32
NONCE_BYTES = 12
_CONTENT_FROM = 1 + NONCE_BYTES

_AES_256_GCM = 1
"""The first of the stored bytes: how the others are sealed. No JSON begins so."""


def seal(content: bytes, *, key: bytes, nonce: bytes, stream: bytes, version: int) -> bytes:
    """*content* as it is stored at event number *version* of its stream; *nonce* is 12 bytes that no other has had."""
    assert len(nonce) == NONCE_BYTES
    return bytes((_AES_256_GCM,)) + nonce + AESGCM(key).encrypt(nonce, content, _bound(stream, version))


def unseal(sealed: bytes, *, key: bytes, stream: bytes, version: int) -> bytes:
    """What `seal` was given.

    Raises:
        DamagedError: bytes or key are not those that were written, or not of this event.
    """
    return Opener(key, stream).opened(sealed, version)


class Opener:
    """Opens what was sealed of one stream. To make the cipher is half of opening, so a replay makes it once a task."""

    __slots__ = ("_cipher", "_stream")

    def __init__(self, key: bytes, stream: bytes) -> None:
        self._stream = stream
        try:
            self._cipher: AESGCM | None = AESGCM(key)
        except ValueError:  # not even of the size that keys have: opens nothing
            self._cipher = None

    def opened(self, sealed: bytes, version: int) -> bytes:
        """What `seal` was given.

        Raises:
            DamagedError: as `unseal`.
        """
        try:
            if self._cipher is not None and sealed[0] == _AES_256_GCM:
                bound = self._stream + version.to_bytes(8, "big")  # as `_bound`, without the call
                return self._cipher.decrypt(sealed[1:_CONTENT_FROM], sealed[_CONTENT_FROM:], bound)
        except (InvalidTag, ValueError, IndexError, OverflowError):
            pass  # changed, or not even of the size that nonces and versions have
        raise DamagedError(
            f"the content of event {version} of task {self._stream.hex()} cannot be read: "
            "it does not open under the task's key"
        )


def _bound(stream: bytes, version: int) -> bytes:
    return stream + version.to_bytes(8, "big")
