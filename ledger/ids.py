"""Task ids: 128 bits, ordered by time, with the task's lane inside; as many spellings of them as there are contracts.

An id has the layout of a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 bits that are
random but for the last eight, which carry the lane. Ids in order of time keep the indexes append-only:
with random ids the append rate at a million events was half. The price: an id tells when its task was created.

Every contract spells the *same* id its own way, so one task can be read through each of them: which way is a field of
the contract, and here are only the digits that there are to choose from. A spelling is read exactly as it is printed
(UUIDs in either case, as RFC 9562 asks); everything else is no id at all.
"""

import re
from collections.abc import Callable
from enum import StrEnum, auto
from typing import ClassVar, NewType

import msgspec

from ledger.times import US_PER_MS

TaskId = NewType("TaskId", bytes)
"""The 16 bytes under which the log knows a task."""

ID_BYTES, TIME_BYTES = 16, 6
ENTROPY_BYTES = ID_BYTES - TIME_BYTES
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")  # 26 characters hold 130 bits: the first two are zero
_TO_BASE_32 = str.maketrans(_CROCKFORD, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
"""To the digits that `int` knows."""
_TIME_MAX_MS = (1 << 48) - 1


def task_id(*, at_us: int, lane: int, entropy: bytes) -> TaskId:
    """The id of a task born at *at_us* (Unix microseconds) in *lane* (0-255), from 10 random bytes."""
    assert len(entropy) == ENTROPY_BYTES
    assert 0 <= lane <= 0xFF  # noqa: PLR2004 - eight bits, by the layout above
    at_ms = at_us // US_PER_MS
    assert 0 <= at_ms <= _TIME_MAX_MS
    body = bytearray(at_ms.to_bytes(TIME_BYTES, "big") + entropy)
    body[6] = 0x70 | (body[6] & 0x0F)  # version 7
    body[8] = 0x80 | (body[8] & 0x3F)  # variant of RFC 9562
    body[15] = lane
    return TaskId(bytes(body))


def born_us(task: TaskId) -> int:
    """When the task was created by its id, in Unix microseconds, to the millisecond."""
    return int.from_bytes(task[:TIME_BYTES], "big") * US_PER_MS


def earliest_id(at_us: int) -> TaskId:
    """A bound: greater than each id from before the millisecond of *at_us* (Unix microseconds), less than any other."""
    return TaskId((at_us // US_PER_MS).to_bytes(TIME_BYTES, "big") + bytes(ID_BYTES - TIME_BYTES))


def lane_of(task: TaskId) -> int:
    """The eight lane bits; an engine with fewer lanes takes them modulo its own number."""
    return task[15]


PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
"""Ten bits as two characters."""
_PAIR_SHIFTS = tuple(range(120, -1, -10))


def ulid(number: bytes) -> str:
    """16 bytes as 26 characters of Crockford's base 32, as the ULID specification prints them."""
    value = int.from_bytes(number, "big")
    return "".join([PAIRS[value >> shift & 1023] for shift in _PAIR_SHIFTS])


def _from_ulid(text: str) -> TaskId | None:
    return TaskId(int(text.translate(_TO_BASE_32), 32).to_bytes(16, "big")) if _ULID.fullmatch(text) else None


_HEX32 = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Digits(StrEnum):
    """How the 128 bits of an id are written."""

    HEX = auto()
    """32 lower-case hex digits."""
    ULID = auto()
    """26 characters of Crockford's base 32."""
    UUID = auto()
    """UUID text."""


class Spelling(msgspec.Struct, frozen=True):
    """How a contract writes a task id: its *prefix*, then the digits."""

    prefix: str
    digits: Digits

    UUID: ClassVar["Spelling"]
    """The native API's."""

    def spell(self, task: TaskId) -> str:
        """The id as this contract prints it."""
        return self.prefix + _SPELL[self.digits](task)

    def parse(self, text: str) -> TaskId | None:
        """The id that *text* spells in this way, or None: then no task can have it."""
        return _PARSE[self.digits](text[len(self.prefix) :]) if text.startswith(self.prefix) else None


Spelling.UUID = Spelling("", Digits.UUID)


def _from_uuid(text: str) -> TaskId | None:
    return TaskId(bytes.fromhex(text.replace("-", ""))) if _UUID.fullmatch(text) else None


def _from_hex(digits: str) -> TaskId | None:
    return TaskId(bytes.fromhex(digits)) if _HEX32.fullmatch(digits) else None


_PARSE: dict[Digits, Callable[[str], TaskId | None]] = {
    Digits.HEX: _from_hex,
    Digits.ULID: _from_ulid,
    Digits.UUID: _from_uuid,
}


def _uuid(task: TaskId) -> str:
    digits = task.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_SPELL: dict[Digits, Callable[[TaskId], str]] = {Digits.HEX: bytes.hex, Digits.ULID: ulid, Digits.UUID: _uuid}
