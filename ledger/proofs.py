"""A proof: one file that shows, to whoever has the log's verifier key and nothing else, what stands in the log.

It carries a signed checkpoint; events with every byte that the chain covers, the link before each, and its path to the
checkpoint's root; and, if asked for, an earlier checkpoint with the path that shows that the log only grew since then.
Content stays sealed in it, so that a proof outlives an erasure and gives nothing back. Alternative beaten: a digest in
the place of the sealed content, which would be shorter; but then the chain would be of another encoding, made anew.

What it does not show: that there are no further events. Of a task they are numbered, so that none is left out *before*
the last one that is shown.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from ledger.chain import Place, link
from ledger.events import amount_of, tag_of
from ledger.ids import TaskId
from ledger.merkle import is_consistent, root_of_inclusion
from ledger.notes import Checkpoint, NoteError, VerifierKey, opened_checkpoint
from ledger.records import Entry, Recorded

_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Signed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Lane = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
_Version = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Stream = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_Path = Annotated[tuple[_Hash, ...], msgspec.Meta(max_length=128)]


class ProvenEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the log, and its way to the root. Bytes are base64 in JSON; *facts* is the very text that is stored."""

    lane: _Lane
    position: _Positive
    stream: _Stream
    version: _Version
    type: str
    recorded_at_us: _Signed
    effective_at_us: _Signed
    account: str
    amount_micros: _Signed | None
    actor: str
    request_id: str
    facts: str
    payload: bytes | None
    """Sealed."""
    previous: _Hash
    """The link of the row before."""
    path: _Path


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    form: Literal["task-ledger proof 1"] = "task-ledger proof 1"
    checkpoint: str
    """A note."""
    events: tuple[ProvenEvent, ...] = ()
    earlier: str | None = None
    """Another note, of the same log when it was smaller."""
    consistency: _Path = ()


class Proven(NamedTuple):
    """What a proof has shown."""

    checkpoint: Checkpoint
    earlier: Checkpoint | None
    events: Sequence[Recorded]


class UnprovenError(Exception):
    """The file proves nothing, or something else than it says."""


def shown(row: Recorded, *, previous: bytes, path: Sequence[bytes]) -> ProvenEvent:
    """The row as a proof carries it; *previous* is the link of the row before."""
    entry = row.entry
    return ProvenEvent(
        lane=row.lane,
        position=row.position,
        stream=row.stream.hex(),
        version=row.version,
        type=entry.type,
        recorded_at_us=entry.recorded_at_us,
        effective_at_us=entry.effective_at_us,
        account=row.account,
        amount_micros=entry.amount_micros,
        actor=entry.actor,
        request_id=entry.request_id,
        facts=entry.facts.decode(),
        payload=entry.payload,
        previous=previous,
        path=tuple(path),
    )


def check(raw: bytes, key: VerifierKey, *, since: Checkpoint | None = None) -> Proven:
    """What the file *raw* proves to who has the log's *key*, and may have kept a checkpoint *since* when it has grown.

    Raises:
        UnprovenError: it proves nothing, or not how the log grew since then.
    """
    try:
        proof = msgspec.json.decode(raw, type=Proof)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnprovenError(f"this is no proof: {error}") from None
    if not proof.events and proof.earlier is None:
        raise UnprovenError("no event is shown, and no earlier checkpoint: there is nothing to prove")
    checkpoint = _opened("the checkpoint", proof.checkpoint, key)
    earlier = None if proof.earlier is None else _opened("the earlier checkpoint", proof.earlier, key)
    if since is not None and since != earlier:
        raise UnprovenError(f"it is not shown how the log grew since it had size {since.tree.size}")
    if earlier is not None and not is_consistent(earlier.tree, checkpoint.tree, proof.consistency):
        raise UnprovenError(
            f"the log of size {checkpoint.tree.size} is not shown to begin with that of size {earlier.tree.size}"
        )
    rows = [_included(event, checkpoint) for event in proof.events]
    positions = [row.position for row in rows]
    if positions != sorted(set(positions)):
        raise UnprovenError("an event is shown twice, or not in its order")
    return Proven(checkpoint, earlier, rows)


def _opened(what: str, note: str, key: VerifierKey) -> Checkpoint:
    try:
        return opened_checkpoint(note, key)
    except NoteError as error:
        raise UnprovenError(f"{what}: {error}") from None


def _included(event: ProvenEvent, checkpoint: Checkpoint) -> Recorded:
    row, size = _row(event), checkpoint.tree.size
    if root_of_inclusion(row.hash, number=row.position - 1, size=size, path=event.path) != checkpoint.tree.root:
        raise UnprovenError(f"the event is not shown to stand at position {row.position} of the log of size {size}")
    _agrees(row)
    return row


def _agrees(row: Recorded) -> None:
    """Refuse a row that says one thing in its columns and another in its facts, whoever signed it."""
    try:
        event = row.event
    except Exception as error:  # noqa: BLE001 - whatever text makes a decoder raise
        raise UnprovenError(f"the event at position {row.position} cannot be read: {error}") from None
    entry = row.entry
    if (entry.type, entry.amount_micros, entry.effective_at_us) != (tag_of(event), amount_of(event), event.at_us):
        raise UnprovenError(f"the columns at position {row.position} say something else than its facts")


def _row(event: ProvenEvent) -> Recorded:
    """The row that is shown, with the link that its bytes give."""
    entry = Entry(
        type=event.type,
        recorded_at_us=event.recorded_at_us,
        effective_at_us=event.effective_at_us,
        amount_micros=event.amount_micros,
        actor=event.actor,
        request_id=event.request_id,
        facts=event.facts.encode(),
        payload=event.payload,
    )
    stream = TaskId(bytes.fromhex(event.stream))
    place = Place(event.lane, event.position, stream, event.version, event.account)
    return Recorded(
        lane=place.lane,
        position=place.position,
        stream=place.stream,
        version=place.version,
        account=place.account,
        entry=entry,
        hash=link(event.previous, place, entry),
    )
