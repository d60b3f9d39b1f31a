"""Events as the two byte strings that they are stored as: facts, and apart from them what may be erased."""

from collections.abc import Sequence
from typing import get_args

import msgspec
from msgspec import UNSET

from ledger.events import TYPES, AnyEvent, Payload, tag_of
from ledger.upcasts import OLD_SHAPES, SHAPE, current, refuse_newer, unknown

_encoder = msgspec.json.Encoder()
_facts: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_payload: msgspec.json.Decoder[Payload] = msgspec.json.Decoder(Payload)
_ONCE_OTHERWISE = tuple(kind for kind in get_args(AnyEvent) if kind.__struct_config__.tag in OLD_SHAPES)
_MARKS = ('"shape":', *(f'"{old.field}":' for old in OLD_SHAPES.values()))
"""What stands in the facts of an event that is written in another way than today's; and in those of some others."""


def encode(event: AnyEvent) -> tuple[bytes, bytes | None]:
    """The event as its two stored byte strings: facts, and payload if it has one."""
    if event.payload is UNSET:
        return _encoder.encode(event), None
    return _encoder.encode(msgspec.structs.replace(event, payload=UNSET)), _encoder.encode(event.payload)


def decode(facts: bytes, payload: bytes | None) -> AnyEvent:
    """The event that `encode` stored.

    Raises:
        UnknownShapeError: a newer version wrote it, and it cannot be read as what this one knows.
        msgspec.ValidationError: a field is not one that this version knows.
    """
    try:
        event = _facts.decode(facts)
    except msgspec.ValidationError as error:
        raise unknown(facts, TYPES) or error from None
    if event.shape != SHAPE:
        refuse_newer(tag_of(event), event.shape)
    if isinstance(event, _ONCE_OTHERWISE):
        told, payload = current(tag_of(event), facts, payload)
        event = event if told is facts else _facts.decode(told)
    if payload is None:
        return event
    return msgspec.structs.replace(event, payload=_payload.decode(payload))


def decode_plain(facts: Sequence[str]) -> list[AnyEvent] | None:
    """The events of these facts, which may have payloads beside; None: each is to be decoded by itself.

    That is so when one of them cannot be read, or may be written in another way than today's. In one call, which is a
    third sooner than one for each.
    """
    lines = "\n".join(facts)
    if lines.count("\n") != len(facts) - 1 or any(mark in lines for mark in _MARKS):
        return None
    try:
        events = _facts.decode_lines(lines)
    except msgspec.DecodeError:
        return None
    return events if len(events) == len(facts) else None
