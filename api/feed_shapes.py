"""How the feed shows an event: as the native API does, or inside a CloudEvent (CNCF CloudEvents 1.0, JSON format)."""

from enum import StrEnum
from typing import Any

import msgspec

from api.native_shapes import event_view
from ledger.ids import Spelling, TaskId
from ledger.records import Recorded
from ledger.streams import is_task_stream
from ledger.times import rfc3339

_encoder = msgspec.json.Encoder()


class Form(StrEnum):
    """What an event is wrapped in."""

    NATIVE = "native"
    CLOUDEVENTS = "cloudevents"


def feed_view(row: Recorded, *, log_id: str) -> dict[str, Any]:
    """A row of the log, with the task and the account that it is about; a payload is shown as its task's history does.

    Raises:
        DamagedError: the payload is not what was sealed.
    """
    return {"task": _task(row), "account": row.account, **event_view(row, log_id=log_id)}


def cloud_event(row: Recorded, *, log_id: str) -> dict[str, Any]:
    """The same as the data of a CloudEvent, which is one by its log and its position there.

    Raises:
        DamagedError: as `feed_view`.
    """
    task = _task(row)
    return {
        "specversion": "1.0",
        "id": str(row.position),
        "source": f"urn:task-ledger:log:{log_id}",
        "type": f"task-ledger.{row.entry.type}",
        **({} if task is None else {"subject": task}),
        "time": rfc3339(row.entry.effective_at_us),
        "datacontenttype": "application/json",
        "data": feed_view(row, log_id=log_id),
    }


def render(row: Recorded, form: Form, log_id: str) -> bytes:
    """The event as JSON, in one line.

    Raises:
        DamagedError: as `feed_view`.
    """
    view = cloud_event if form is Form.CLOUDEVENTS else feed_view
    return _encoder.encode(view(row, log_id=log_id))


def _task(row: Recorded) -> str | None:
    return Spelling.UUID.spell(TaskId(row.stream)) if is_task_stream(row.stream) else None
