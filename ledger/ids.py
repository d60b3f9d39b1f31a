"""Task ids: 128 bits, ordered by time, with the task's lane inside; four spellings of the same bits.

An id has the layout of a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 bits that are
random but for the last eight, which carry the lane. Ids in order of time keep the indexes append-only:
with random ids the append rate at a million events was half. The price: an id tells when its task was created.

Every contract spells the *same* id its own way, so one task can be read through each of them. A spelling is
read exactly as it is printed (UUIDs in either case, as RFC 9562 asks); everything else is no id at all.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NewType

TaskId = NewType("TaskId", bytes)
"""The 16 bytes under which the log knows a task."""

ENTROPY_BYTES = 10
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")  # 26 characters hold 130 bits: the first two are zero
_TO_BASE_32 = str.maketrans(_CROCKFORD, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
"""To the digits that `int` knows."""
_TIME_MAX_MS = (1 << 48) - 1


def task_id(*, at_us: int, lane: int, entropy: bytes) -> TaskId:
    """The id of a task born at *at_us* (Unix microseconds) in *lane* (0-255), from 10 random bytes."""
    assert len(entropy) == ENTROPY_BYTES
    assert 0 <= lane <= 0xFF  # noqa: PLR2004 - eight bits, by the layout above
    at_ms = at_us // 1000
    assert 0 <= at_ms <= _TIME_MAX_MS
    body = bytearray(at_ms.to_bytes(6, "big") + entropy)
    body[6] = 0x70 | (body[6] & 0x0F)  # version 7
    body[8] = 0x80 | (body[8] & 0x3F)  # variant of RFC 9562
    body[15] = lane
    return TaskId(bytes(body))


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


class Spelling(StrEnum):
    """How a contract writes a task id; the value names the one who writes it so."""

    LDTASK = "ldtask_"
    """LemonData: ``ldtask_`` and 32 lower-case hex digits."""
    TASK_ULID = "task_"
    """ByteSpike: ``task_`` and a ULID."""
    UUID = "uuid"
    """Chunkr and the native API: UUID text."""
    TSK_ULID = "tsk_"
    """beatra: ``tsk_`` and a ULID."""

    def spell(self, task: TaskId) -> str:
        """The id as this contract prints it."""
        return _SPELL[self](task)

    def parse(self, text: str) -> TaskId | None:
        """The id that *text* spells in this way, or None: then no task can have it."""
        return _PARSE[self](text)


def _from_uuid(text: str) -> TaskId | None:
    return TaskId(bytes.fromhex(text.replace("-", ""))) if _UUID.fullmatch(text) else None


def _from_hex(digits: str) -> TaskId | None:
    return TaskId(bytes.fromhex(digits)) if _HEX32.fullmatch(digits) else None


def _after(prefix: str, parse: Callable[[str], TaskId | None]) -> Callable[[str], TaskId | None]:
    """*parse* of what follows *prefix*."""
    return lambda text: parse(text[len(prefix) :]) if text.startswith(prefix) else None


_PARSE: dict[Spelling, Callable[[str], TaskId | None]] = {
    Spelling.LDTASK: _after("ldtask_", _from_hex),
    Spelling.TASK_ULID: _after("task_", _from_ulid),
    Spelling.UUID: _from_uuid,
    Spelling.TSK_ULID: _after("tsk_", _from_ulid),
}


def _uuid(task: TaskId) -> str:
    digits = task.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_SPELL: dict[Spelling, Callable[[TaskId], str]] = {
    Spelling.LDTASK: lambda task: "ldtask_" + task.hex(),
    Spelling.TASK_ULID: lambda task: "task_" + ulid(task),
    Spelling.UUID: _uuid,
    Spelling.TSK_ULID: lambda task: "tsk_" + ulid(task),
}


def parse_any(text: str) -> TaskId | None:
    """The id in whichever of the four spellings *text* has; None when it has none of them."""
    for spelling in Spelling:
        task = spelling.parse(text)
        if task is not None:
            return task
    return None
