"""Breaks: what differs between the ledger and what it is held against, and the life of such a difference. Pure.

A break is one stream of the log, named by a digest of provider, kind and what it is about. So whoever finds the same
difference again finds the break, whichever statement shows it, and opening it twice is one event. Alternative beaten:
one stream for all breaks of a provider, which would have to be read as a whole to open one more.

========= ========================================= ===============================
life      comes from                                then
========= ========================================= ===============================
open      a reconciliation found it                 explained, corrected
explained somebody knows why                        explained otherwise, corrected
corrected it was put right, or differs no more      nothing: it is never opened again
========= ========================================= ===============================

What was said of a difference was said of its amount: where the same thing differs by a larger amount after it was
explained or corrected, or once more after it had agreed, that is a further break, numbered after the first.
"""

from enum import StrEnum
from functools import reduce
from typing import TypeAlias, assert_never

import msgspec
from msgspec.structs import asdict, replace

from ledger.errors import BreakClosed, UnknownBreak
from ledger.events import BreakCorrected, BreakEvent, BreakExplained, BreakKind, BreakOpened, tag_of
from ledger.streams import STREAM_BYTES, named_stream


class Life(StrEnum):
    """Where a break is."""

    OPEN = "open"
    EXPLAINED = "explained"
    CORRECTED = "corrected"


class Difference(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Something that differs, as a comparison finds it. Amounts are micro-credits, times are Unix microseconds."""

    provider: str
    """Empty for what concerns none."""
    kind: BreakKind
    about: str
    """What it is about, the same for whoever finds it: a task, a line, an account."""
    at_stake_micros: int
    since_us: int
    detail: str
    task: str | None = None
    lines: tuple[int, ...] = ()
    line_ids: tuple[str, ...] = ()

    @property
    def break_id(self) -> str:
        """The id of its break: 32 hex digits."""
        return named_stream(b"break", self.provider, self.kind, self.about).hex()

    def anew(self, nth: int) -> "Difference":
        """The same, as the *nth* difference about it."""
        return self if nth == 1 else replace(self, about=f"{self.about} anew {nth}")


class Break(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A difference and its life."""

    break_id: str
    found: Difference
    opened_at_us: int
    statement: str | None = None
    owner: str | None = None
    life: Life = Life.OPEN
    reason: str | None = None
    corrected_by: int | None = None
    """The position in the log of what put it right."""
    agrees: bool = False
    """It was corrected because it had gone, as `BreakCorrected` has it."""

    def covers(self, found: Difference) -> bool:
        """Whether *found*, which is about the same, is this break still or again, as a whole or in part."""
        if self.life is Life.OPEN:
            return True
        return not self.agrees and found.at_stake_micros <= self.found.at_stake_micros


class OpenBreak(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison found it; in that statement, if it was one with a statement."""

    at_us: int
    found: Difference
    statement: str | None = None
    owner: str | None = None


class ExplainBreak(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    break_id: str
    reason: str
    owner: str | None = None


class CorrectBreak(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    break_id: str
    reason: str
    position: int | None = None
    agrees: bool = False


BreakCommand: TypeAlias = OpenBreak | ExplainBreak | CorrectBreak


def decide_break(old: Break | None, command: BreakCommand) -> list[BreakEvent]:
    """The events that *command* causes; none if all has been said already.

    Raises:
        UnknownBreak: there is no such break.
        BreakClosed: it was corrected, and this says something else.
    """
    match command:
        case OpenBreak(found=found):
            return [] if old is not None else [_opened(command, found)]
        case ExplainBreak(reason=reason):
            known = _known(old, command.break_id)
            owner = command.owner or known.owner
            if (known.life, known.reason, known.owner) == (Life.EXPLAINED, reason, owner):
                return []
            if known.life is Life.CORRECTED:
                raise BreakClosed(command.break_id)
            return [BreakExplained(at_us=command.at_us, break_id=command.break_id, reason=reason, owner=command.owner)]
        case CorrectBreak(reason=reason, position=position):
            known = _known(old, command.break_id)
            if (known.life, known.reason, known.corrected_by) == (Life.CORRECTED, reason, position):
                return []
            if known.life is Life.CORRECTED:
                raise BreakClosed(command.break_id)
            return [_corrected(command)]
        case _:
            assert_never(command)


def evolve_break(old: Break | None, event: BreakEvent) -> Break:
    """The break after *event*."""
    match event:
        case BreakOpened():
            found = Difference(**{name: getattr(event, name) for name in Difference.__struct_fields__})
            return Break(
                break_id=event.break_id,
                found=found,
                opened_at_us=event.at_us,
                statement=event.statement,
                owner=event.owner,
            )
        case BreakExplained():
            assert old is not None, "only what was opened is explained"
            return replace(old, life=Life.EXPLAINED, reason=event.reason, owner=event.owner or old.owner)
        case BreakCorrected():
            assert old is not None, "only what was opened is corrected"
            return replace(
                old, life=Life.CORRECTED, reason=event.reason, corrected_by=event.position, agrees=event.agrees
            )
        case _:
            assert_never(event)


def break_violation(known: Break | None, event: BreakEvent) -> str | None:
    """What is wrong with this event after *known*; None: nothing."""
    if isinstance(event, BreakOpened) is (known is not None):
        return f"{tag_of(event)} of a break that {'was' if known else 'was never'} opened before"
    if known is not None and known.life is Life.CORRECTED:
        return f"{tag_of(event)} of a break that has been corrected"
    if isinstance(event, BreakOpened) and evolve_break(None, event).found.break_id != event.break_id:
        return "the id is not the digest of provider, kind and what it is about"
    return None


def fold_break(events: list[BreakEvent]) -> Break | None:
    """The break that these events, oldest first, leave behind; None for none."""
    none: Break | None = None
    return reduce(evolve_break, events, none)


def break_stream(break_id: str) -> bytes | None:
    """The 16 bytes that name the break's stream; None when no break can have this id."""
    try:
        stream = bytes.fromhex(break_id)
    except ValueError:
        return None
    return stream if len(stream) == STREAM_BYTES and break_id == stream.hex() else None


def statement_stream(provider: str, statement: str) -> bytes:
    """The 16 bytes that name the stream of a provider's statement."""
    return named_stream(b"statement", provider, statement)


def replaced_stream(provider: str) -> bytes:
    """The 16 bytes that name the stream in which it stands which of a provider's statements were replaced."""
    return named_stream(b"replaced", provider)


def provider_stream(provider: str) -> bytes:
    """The 16 bytes that name the stream of what a provider bills."""
    return named_stream(b"provider", provider)


def switch_stream() -> bytes:
    """The 16 bytes that name the stream in which it stands when a projection was switched."""
    return named_stream(b"projection")


def _opened(command: OpenBreak, found: Difference) -> BreakOpened:
    return BreakOpened(
        at_us=command.at_us,
        break_id=found.break_id,
        statement=command.statement,
        owner=command.owner,
        **asdict(found),
    )


def _corrected(command: CorrectBreak) -> BreakCorrected:
    return BreakCorrected(
        at_us=command.at_us,
        break_id=command.break_id,
        reason=command.reason,
        position=command.position,
        agrees=command.agrees,
    )


def _known(old: Break | None, break_id: str) -> Break:
    if old is None:
        raise UnknownBreak(break_id)
    return old
