"""The log as lines of JSON: what `export` writes and `import` reads. Pure.

A line for the log itself, one for each event in order, one for each claim in that of their ids, and one for the end,
without which a file is known to be cut short. An event's facts stand in it byte for byte as they are in the log, for
its hash covers them: a tool that writes them anew, though with the same meaning, makes another event, and that shows.
Content stands in it as it is in the log too, sealed, with the key that opens it if it has not been erased. So does the
store's pepper, or no API key and no fingerprint would be recognised: an export is as secret as the store.

As CloudEvents (version 1.0, JSON format) each line is the `data` of one; `source` is the log, `id` is unique in it.
Nobody here reads the ids, so exports whose claims had others are read as well.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from ledger.ids import Spelling, TaskId
from ledger.lineage import Lineage
from ledger.records import ClaimRow, Entry, Recorded
from ledger.streams import is_task_stream
from ledger.times import rfc3339

FORMAT = 1
SPEC_VERSION = "1.0"
_EVENT_FIELDS = ("type", "recorded_at_us", "effective_at_us", "amount_micros", "actor", "request_id", "payload")


class LogLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="log"):
    """The first one: whose log it is. *after* and *hash* are where it begins, 0 for the beginning."""

    format: int
    log_id: str
    lineage: Lineage
    pepper: bytes
    after: int
    hash: str


class EventLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="event"):
    """A row of the log. Streams and hashes are hex, other bytes base64."""

    position: int
    lane: int
    stream: str
    version: int
    type: str
    recorded_at_us: int
    effective_at_us: int
    account: str
    amount_micros: int | None
    actor: str
    request_id: str
    facts: msgspec.Raw
    payload: bytes | None
    key: bytes | None
    """What the payload opens with; None: there is none, or it has been erased."""
    hash: str


class ClaimLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="claim"):
    """An idempotency key, and where its first answer is."""

    account: str
    operation: str
    key: str
    fingerprint: str
    task: str
    version: int
    appended: bool
    at_us: int


class StoreDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What all that is folded from a log comes to: equal digests are equal views and totals."""

    tasks: int
    views: str
    """SHA-256 of all tasks' views, in the order of their ids, in hex."""
    accounts: str
    """SHA-256 of what each account has and owes, in hex."""
    held_micros: int
    charged_micros: int
    refunded_micros: int


class EndLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="end"):
    """The last one. *proof* is there when the export goes to the end of the log."""

    events: int
    claims: int
    position: int
    hash: str
    proof: StoreDigest | None


Line: TypeAlias = LogLine | EventLine | ClaimLine | EndLine
_lines: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class _Envelope(msgspec.Struct, frozen=True):
    specversion: str | None = None
    data: msgspec.Raw = msgspec.Raw()


_envelopes: msgspec.json.Decoder[_Envelope] = msgspec.json.Decoder(_Envelope)


def event_line(row: Recorded) -> EventLine:
    entry = row.entry
    return EventLine(
        position=row.position,
        lane=row.lane,
        stream=row.stream.hex(),
        version=row.version,
        account=row.account,
        facts=msgspec.Raw(entry.facts),
        key=row.seal_key if entry.payload is not None else None,
        hash=row.hash.hex(),
        **{name: getattr(entry, name) for name in _EVENT_FIELDS},
    )


def recorded(line: EventLine) -> Recorded:
    """The row that `event_line` was given.

    Raises:
        ValueError: its stream or hash is no hex.
    """
    return Recorded(
        lane=line.lane,
        position=line.position,
        stream=bytes.fromhex(line.stream),
        version=line.version,
        account=line.account,
        entry=Entry(facts=bytes(line.facts), **{name: getattr(line, name) for name in _EVENT_FIELDS}),
        hash=bytes.fromhex(line.hash),
        seal_key=line.key,
    )


def claim_line(row: ClaimRow) -> ClaimLine:
    return ClaimLine(
        account=row.account,
        operation=row.operation,
        key=row.key,
        fingerprint=row.fingerprint,
        task=row.task_id.hex(),
        version=row.version,
        appended=row.appended,
        at_us=row.at_us,
    )


def claim_row(line: ClaimLine) -> ClaimRow:
    """The row that `claim_line` was given.

    Raises:
        ValueError: its task is no hex.
    """
    facts = msgspec.structs.asdict(line)
    return ClaimRow(task_id=TaskId(bytes.fromhex(facts.pop("task"))), **facts)


def as_cloud_event(line: Line, log_id: str) -> dict[str, Any]:
    """*line* as the data of a CloudEvent."""
    told: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "source": f"urn:task-ledger:log:{log_id}",
        "datacontenttype": "application/json",
    }
    match line:
        case LogLine():
            told |= {"id": f"begin-{line.after}", "type": "task-ledger.export-begun"}
        case EventLine():
            told |= {
                "id": str(line.position),
                "type": f"task-ledger.{line.type}",
                "time": rfc3339(line.recorded_at_us),
            }
            stream = bytes.fromhex(line.stream)
            if is_task_stream(stream):
                told["subject"] = Spelling.UUID.spell(TaskId(stream))
        case ClaimLine():
            told |= {"id": _claim_id(line), "type": "task-ledger.claim"}
        case EndLine():
            told |= {"id": f"end-{line.position}", "type": "task-ledger.export-ended"}
    return {**told, "data": line}


def _claim_id(line: ClaimLine) -> str:
    """Another one for each claim: what separates its parts stands in none of them."""
    return "/".join(["claim", *(quote(part, safe="") for part in (line.account, line.operation, line.key))])


def decode(text: bytes) -> Line:
    """The line that *text* is, plain or a CloudEvent.

    Raises:
        ValueError: it is neither.
    """
    if b'"specversion"' in text:  # which somebody may also have chosen for a key of his own
        envelope = _envelopes.decode(text)
        if envelope.specversion is not None:
            return _lines.decode(envelope.data)
    return _lines.decode(text)


def _plain(line: Line, _: str) -> Line:
    return line


class Format(StrEnum):
    """How an export writes its lines."""

    JSONL = "jsonl"
    CLOUDEVENTS = "cloudevents"


FORMATS: Mapping[Format, Callable[[Line, str], object]] = {Format.JSONL: _plain, Format.CLOUDEVENTS: as_cloud_event}
"""What a line becomes before it is written, given the log's name."""
