"""What a line of a statement is known by: its id, or what it names and when, whatever it bills. Pure.

What is joined by slashes has slashes of its own nowhere, or it would be another line's name as well; what has any is
written as an array in JSON. So names in old logs stay what they were.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from projections.reconciliation.statements import Line

_JOINED = "line of "
_ARRAY = "line: "


def names_of(lines: Sequence[Line]) -> list[str]:
    """What each line is known by, no two the same."""
    told = [_name_of(line) for line in lines]
    if len(set(told)) == len(told):
        return told
    times: Counter[str] = Counter()
    names: list[str] = []
    taken: set[str] = set()
    for said in told:
        name = said
        while name in taken:
            times[said] += 1
            name = f"{said} again {times[said]}"
        taken.add(name)
        names.append(name)
    return names


def _name_of(line: Line) -> str:
    return (
        _by_id(line.line_id) if line.line_id else _by(line, line.started_at_us, line.finished_at_us, line.billed_at_us)
    )


def amount_key(line: Line) -> str:
    """What a break about the line is known by: its id, or else what it says, which stays when lines are added to it."""
    return _by_id(line.line_id) if line.line_id else _by(line, line.amount_micros, line.at_us)


def _by_id(line_id: str) -> str:
    name = f"line {line_id}"
    return _array(line_id) if name.startswith(_JOINED) and "/" in line_id else name


def _by(line: Line, *rest: int | None) -> str:
    parts = (line.provider_task_id, line.our_task_id, line.model)
    if any("/" in part for part in parts):
        return _array(*parts, *rest)
    return _JOINED + "/".join(map(str, (*parts, *rest)))


def _array(*parts: str | int | None) -> str:
    return _ARRAY + msgspec.json.encode(parts).decode()
