"""The audit: whether the log is what was written, and whether all that is folded from it follows from it.

First the engine looks at what lies under it, as indexes and the guards of the log: of an SQLite file a twentieth of the
time that the rest takes. Then come two passes. The first reads the log in order: chain, positions, head, every event
and its columns, API keys, the lives of breaks, webhooks, what providers bill. The second reads every task's row, folds
its events afresh and compares: versions, row and view to the byte, seals, money, outcomes, claims. Both add up what
each account comes to, and its row is compared with that when every task could be read. Events whose task has no row
show in the count; only then is the log read once more, to name them. The log's earlier names are held against it. What
cannot be read is named and passed over. All of it is inside one snapshot, so that it can run beside a serving process.

Memory is a page of the log, or the histories of a page of tasks, and the API keys, the accounts and their grants, the
breaks, and a number for each line that a provider has billed: it does not grow with the tasks. Alternative beaten: the
streams in memory, which would have spared the second reading of the events.

What it sees only with a checkpoint that was kept elsewhere: the end of the log cut off and its head set back with it;
a log rewritten from some event on with all its hashes and rows. What it cannot see, by design: what happened to a claim
whose request changed nothing, since no event tells of it; a key in the table of seals that is no task's; the log's name
or pepper changed for another of the same form; an earlier name of it that was changed or taken away.
"""

from collections.abc import Sequence

from ledger.engine import Engine
from ledger.ids import TaskId
from ledger.notes import Checkpoint
from ledger.records import Head
from ledger.streams import is_task_stream
from projections.audit.accounts import AccountBooks
from projections.audit.findings import Check, Findings, Meter, Report, log_pages, sound
from projections.audit.lineage import compare_lineage
from projections.audit.log import LogPass
from projections.audit.tasks import TaskPass
from projections.audit.tree import TreeCheck
from projections.facts import brief
from projections.follow import Progress, nobody


async def audit(engine: Engine, *, checkpoints: Sequence[Checkpoint] = (), progress: Progress = nobody) -> Report:
    """Check all of *engine*'s log against itself, everything kept beside it against the log, and that against these."""
    found = Findings()
    async with engine.snapshot():
        await look_under(engine, found)  # before the meter: what it takes is no share of what the meter counts
        head = await head_of(engine, found)
        meter = Meter(progress, total=0 if head is None else 2 * head.position)
        books = AccountBooks(found)
        log = LogPass(head, found, meter, books, TreeCheck(checkpoints, found))
        await log.read(engine)
        first_bad_position = found.first_bad_position  # of the log, if it is broken itself: what follows from it is too
        await compare_lineage(engine, found)
        await log.compare_keys(engine)
        tasks = TaskPass(engine, found, meter, books)
        await tasks.read()
        if tasks.complete and tasks.events != log.task_events:
            await _name_strays(engine, found, surplus=log.task_events - tasks.events)
        elif tasks.complete:
            await books.compare(engine)
    end = head or log.end
    return Report(
        position=end.position,
        head=end.hash.hex(),
        events=log.events,
        tasks=tasks.tasks,
        found=found.count,
        first_bad_position=found.first_bad_position if first_bad_position is None else first_bad_position,
        findings=tuple(found.told),
    )


async def look_under(engine: Engine, found: Findings) -> None:
    try:
        damages = sound(await engine.damage(), list[str])
    except Exception as error:  # noqa: BLE001 - as `log_pages`
        found.add(Check.STORE, f"the store cannot be checked: {brief(error)}")
        return
    for damage in damages:
        found.add(Check.STORE, damage)


async def head_of(engine: Engine, found: Findings) -> Head | None:
    try:
        return sound(await engine.head(), Head)
    except Exception as error:  # noqa: BLE001 - as `log_pages`
        found.add(Check.HEAD, f"the head cannot be read: {brief(error)}")
        return None


async def _name_strays(engine: Engine, found: Findings, *, surplus: int) -> None:
    """Name the tasks that have events and no row."""
    before = found.count
    named_already = Findings()
    async for rows in log_pages(engine, named_already):
        first: dict[TaskId, int] = {}
        for row in rows:
            if is_task_stream(row.stream):
                first.setdefault(TaskId(row.stream), row.position)
        try:
            known = await engine.tasks(list(first))
        except Exception as error:  # noqa: BLE001 - as `log_pages`
            found.add(Check.UNREADABLE, f"task rows cannot be read: {brief(error)}", position=rows[0].position)
            return
        for task, position in first.items():
            if task not in known:
                found.add(Check.ROW, "the task of this event has no row", position=position, task=task)
    if found.count == before:
        found.add(Check.ROW, f"the log holds {surplus:+} events against the histories of all tasks")
