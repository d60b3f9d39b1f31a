"""Signed notes and checkpoints, as C2SP's signed-note and tlog-checkpoint have them, and the Ed25519 keys for them.

A note is text, an empty line, and a signature line for each key that signed it. A checkpoint is a note of at least
three lines: the log's origin, its size, and the root of its Merkle tree. That form, and none of our own, because
whoever watches such logs has a program that reads it.

Keys are written as Go's `sumdb/note` writes them, which is what those programs take. The name of a key is the origin of
the log that it signs for; the specification only advises it, here nothing else is taken.
"""

import base64
import binascii
import re
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.merkle import HASH_BYTES, Tree

SEED_BYTES = 32
NOTE_MAX_CHARS = 1 << 20
"""A signature of other kinds may have 5 kB, and sixteen are to be taken."""
SIGNATURES_MAX = 100
SIZE_MAX = 2**63 - 1

_KEY_ID_BYTES = 4
_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+]+")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_LINES_MIN = 3
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class NoteError(Exception):
    """The text is not what it should be: no key, no note, no checkpoint, or not signed by the key."""


class VerifierKey(NamedTuple):
    """What signatures are checked with. It is public."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_base64(_ED25519 + self.public)}"


class SignerKey(NamedTuple):
    """What notes are signed with. It is secret: print it nowhere."""

    name: str
    seed: bytes

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    @property
    def secret_text(self) -> str:
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{_base64(_ED25519 + self.seed)}"

    def __repr__(self) -> str:
        return f"SignerKey({self.name!r})"


def is_name(text: str) -> bool:
    """Whether a key can be called that."""
    return _NAME.fullmatch(text) is not None and text.isprintable() and _is_unicode(text)


def verifier_key(text: str) -> VerifierKey:
    """The key that *text* spells.

    Raises:
        NoteError: it spells none.
    """
    name, key_id, raw = _key_parts(text)
    key = VerifierKey(name, raw)
    if key.id.hex() != key_id:
        raise NoteError("the verifier key has another id than its name and bytes give: a character is wrong")
    return key


def signer_key(text: str) -> SignerKey:
    """The key that *text* spells.

    Raises:
        NoteError: it spells none. The message does not repeat it.
    """
    if not text.startswith(_PRIVATE):
        raise NoteError("this is no private key of notes")
    name, key_id, seed = _key_parts(text.removeprefix(_PRIVATE))
    key = SignerKey(name, seed)
    if key.verifier.id.hex() != key_id:
        raise NoteError("the private key has another id than its name and bytes give: a character is wrong")
    return key


def _key_parts(text: str) -> tuple[str, str, bytes]:
    """Name, id, and the 32 bytes of a key."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = _unbase64(encoded)
    if not is_name(name) or raw is None or raw[:1] != _ED25519 or len(raw) != 1 + SEED_BYTES:
        raise NoteError("this is no Ed25519 key of notes: NAME+ID+BASE64")
    return name, key_id, raw[1:]


# Notes


def sign(text: str, key: SignerKey) -> str:
    """The note of *text*, whose lines all end."""
    assert text.endswith("\n")
    assert _is_plain(text)
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    return f"{text}\n— {key.name} {_base64(key.verifier.id + signature)}\n"


def opened(note: str, key: VerifierKey) -> str:
    """The text of *note*, which *key* signed. Signatures of other keys are passed over.

    Raises:
        NoteError: it is no note, or *key* did not sign it.
    """
    text, signatures = _parts(note)
    ours = [made for name, made in signatures if (name, made[:_KEY_ID_BYTES]) == (key.name, key.id)]
    if not ours:
        raise NoteError(f"the note is not signed by {key.name}, key {key.id.hex()}")
    try:
        public = Ed25519PublicKey.from_public_bytes(key.public)
        for made in ours:
            public.verify(made[_KEY_ID_BYTES:], text.encode())
    except (InvalidSignature, ValueError):  # or no point of the curve
        raise NoteError(f"the signature of {key.name} is not one of this text") from None
    return text


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text, and who signed it how; unchecked."""
    if len(note) > NOTE_MAX_CHARS or not _is_plain(note):
        raise NoteError("this is no signed note: it is too long, or has characters that none has")
    body, gap, lines = note.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise NoteError("this is no signed note: no empty line, and then lines of signatures")
    signatures = [_signature(line) for line in lines.removesuffix("\n").split("\n")]
    if len(signatures) > SIGNATURES_MAX:
        raise NoteError("this is no signed note: it has too many signatures")
    return f"{body}\n", signatures


def _signature(line: str) -> tuple[str, bytes]:
    told = _SIGNATURE.fullmatch(line)
    made = None if told is None else _unbase64(told[2])
    if told is None or made is None or len(made) <= _KEY_ID_BYTES:
        raise NoteError("this is no signed note: a line of signatures is none")
    return told[1], made


# Checkpoints


class Checkpoint(NamedTuple):
    """What a log was: its origin, and its tree."""

    origin: str
    tree: Tree

    @property
    def root_text(self) -> str:
        return _base64(self.tree.root)

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.tree.size}\n{self.root_text}\n"


def sign_checkpoint(tree: Tree, key: SignerKey) -> str:
    """The note of the checkpoint of a log whose origin is the key's name."""
    return sign(Checkpoint(key.name, tree).text, key)


def checkpoint_in(note: str) -> Checkpoint:
    """The checkpoint that *note* says to be, whoever signed it: only for who knows where it has the note from.

    Raises:
        NoteError: it is none.
    """
    text, _ = _parts(note)
    return _checkpoint(text)


def opened_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """The checkpoint that *note* is, signed by *key*.

    Raises:
        NoteError: it is none, *key* did not sign it, or the log has another name than the key.
    """
    told = _checkpoint(opened(note, key))
    if told.origin != key.name:
        raise NoteError(f"the checkpoint is of {told.origin}, the key is of {key.name}")
    return told


def _checkpoint(text: str) -> Checkpoint:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < _LINES_MIN or not all(lines):
        raise NoteError("this is no checkpoint: origin, size and root, a line each")
    origin, size, encoded = lines[:_LINES_MIN]  # lines beyond are for who wrote them: C2SP has them passed over
    root = _unbase64(encoded)
    if not _SIZE.fullmatch(size) or int(size) > SIZE_MAX or root is None or len(root) != HASH_BYTES:
        raise NoteError("this is no checkpoint: its size is no decimal number, or its root no hash")
    return Checkpoint(origin, Tree(int(size), root))


# Text


def _is_plain(text: str) -> bool:
    """Whether a note may have these characters: all of Unicode, but no control characters of ASCII save newlines."""
    return _is_unicode(text) and all(char >= " " or char == "\n" for char in text)


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it, which UTF-8 has no bytes for."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str) -> bytes | None:
    """The bytes that *text* encodes, if there is no other text for them."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _base64(raw) == text else None
