"""What a replay would change, in words: a line for each field of a row that differs, figures before the rest. Pure."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from ledger.ids import Spelling, TaskId
from ledger.records import AccountRow
from ledger.sqlite_sql import TASK_COLUMNS
from projections.replay.ranges import AccountDifference, Difference
from projections.replay.stored_differences import VIEW
from projections.replay.task_pages import Row

CONTENT = frozenset({"input", "metadata", "output", "message", "warnings"})
"""Of a view: what customers send and get. That it differs is told, what it is is not."""
_NO_ROW = "no row"


class Projection(StrEnum):
    """What is folded from the log and kept, and so can be replayed."""

    TASKS = "tasks"
    ACCOUNTS = "accounts"
    BOOKS = "books"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A field that would change: of a task, or of an account."""

    projection: Projection
    row: str
    field: str
    live: Any
    replayed: Any


def account_lines(found: Iterable[AccountDifference]) -> Iterator[Line]:
    for one in found:
        for field, live, replayed in _changed(_account_fields(one.live), _account_fields(one.fresh)):
            yield Line(projection=Projection.ACCOUNTS, row=one.account, field=field, live=live, replayed=replayed)


def task_lines(one: Difference) -> list[Line]:
    """What would change of a task; that nothing can be made of its events, if that is so."""
    name = Spelling.UUID.spell(TaskId(one.task))
    if one.problem is not None:
        return [Line(projection=Projection.TASKS, row=name, field="events", live=None, replayed=one.problem)]
    return [
        Line(projection=Projection.TASKS, row=name, field=field, live=live, replayed=replayed)
        for field, live, replayed in _changed(_task_fields(one.live), _task_fields(one.fresh))
    ]


def _changed(live: dict[str, Any] | None, fresh: dict[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """The fields in which two rows differ, figures first."""
    if live is None or fresh is None:
        return [("row", _NO_ROW if live is None else "a row", _NO_ROW if fresh is None else "a row")]
    names = [name for name in {**fresh, **live} if live.get(name) != fresh.get(name)]
    names.sort(key=lambda name: not name.endswith("_micros"))  # a sort keeps the order of equals
    return [(name, _shown(name, live), _shown(name, fresh)) for name in names]


def _shown(name: str, row: dict[str, Any]) -> Any:  # noqa: ANN401 - a field's value
    is_content = bool(CONTENT & {*name.split(".")})
    return f"<{len(msgspec.json.encode(row.get(name)))} bytes>" if is_content else row.get(name)


def _account_fields(row: AccountRow | None) -> dict[str, Any] | None:
    return None if row is None else msgspec.structs.asdict(row)


def _task_fields(row: Row | None) -> dict[str, Any] | None:
    """The columns of a row, and in the place of its view the fields of that, to the leaf."""
    if row is None:
        return None
    fields = {name: value for name, value in zip(TASK_COLUMNS, row, strict=True) if name not in {"task", "view"}}
    return fields | _leaves("view", _view(row[VIEW]))


def _view(view: bytes) -> Any:  # noqa: ANN401 - whatever JSON it is
    try:
        return msgspec.json.decode(view)
    except ValueError:
        return f"unreadable: {len(view)} bytes"


def _leaves(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not isinstance(value, dict) or CONTENT & {*name.split(".")}:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(f"{name}.{key}", inner)
    return found
