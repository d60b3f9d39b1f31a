"""Old shapes of events, read as what they would be today; and newer ones, refused by name. Pure.

A field that is added has a default, so nearly every old shape needs nothing here. One that was moved or renamed is
read by a row of `OLD_SHAPES`, for ever: the log is never rewritten. A shape that cannot be read as an older one carries
its number in ``shape`` (absent: 1), so that a program that does not know it says so, and does not take it for what it
knows. ``tests/shapes`` has the bytes of every shape that was ever written, with the tasks that they fold into.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

SHAPE = 1
"""The newest that this program writes and reads, of every event."""

Facts: TypeAlias = dict[str, Any]
Content: TypeAlias = dict[str, Any] | None


class UnknownShapeError(msgspec.ValidationError):
    """An event that a newer program wrote."""


class OldShape(NamedTuple):
    """How an event used to be written: known by a field among its facts, and read as *upcast* has it."""

    field: str
    upcast: Callable[[Facts, Content], tuple[Facts, Content]]

    def may_be(self, facts: bytes) -> bool:
        """Whether it is worth a look: the name may also stand deeper inside."""
        return b'"%s":' % self.field.encode() in facts


def _warnings_are_content(facts: Facts, content: Content) -> tuple[Facts, Content]:
    """Warnings of a completion stood among its facts, where no erasure reached them."""
    warnings = facts.pop("warnings")
    return facts, (content or {}) | {"warnings": warnings}


OLD_SHAPES: dict[str, OldShape] = {"completed": OldShape("warnings", _warnings_are_content)}
"""By the tag of the event."""


def current(tag: str, facts: bytes, payload: bytes | None) -> tuple[bytes, bytes | None]:
    """Facts and payload as this program writes them."""
    old = OLD_SHAPES.get(tag)
    if old is None or not old.may_be(facts):
        return facts, payload
    told: Facts = msgspec.json.decode(facts, type=dict[str, Any])
    if old.field not in told:
        return facts, payload
    content: Content = None if payload is None else msgspec.json.decode(payload, type=dict[str, Any])
    told, content = old.upcast(told, content)
    return msgspec.json.encode(told), None if content is None else msgspec.json.encode(content)


def refuse_newer(tag: str, shape: int) -> None:
    """Check that this program reads the shape.

    Raises:
        UnknownShapeError: a newer one wrote it.
    """
    if shape > SHAPE:
        raise UnknownShapeError(
            f"event {tag!r} has shape {shape}, this program knows up to {SHAPE}: use a newer task-ledger"
        )


def unknown(facts: bytes, tags: frozenset[str]) -> UnknownShapeError | None:
    """That these facts are of an event of another name than *tags*; None: that is not what is wrong with them."""
    try:
        tag = msgspec.json.decode(facts, type=_Tagged).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if tag in tags else UnknownShapeError(f"this program knows no event {tag!r}: use a newer task-ledger")


class _Tagged(msgspec.Struct, gc=False):
    type: str
