"""The SQL of tasks in the books: how they are moved on, and how they are read, each statement as one whole text."""

from projections.books.books_sql import LOW_BITS

READ_MAX = 500
"""Tasks asked for by their ids in one statement."""

STEP = """
UPDATE tasks SET
    status = CASE ?1 WHEN 'update-reverted' THEN coalesce(before_update, status) ELSE coalesce(?3, status) END,
    finished_at = CASE
        WHEN ?1 = 'update-reverted' THEN before_update_finished_at
        WHEN ?1 = 'update-requested' THEN NULL
        WHEN ?1 IN ('completed', 'failed', 'cancelled', 'expired') THEN ?2
        ELSE finished_at END,
    before_update = CASE ?1
        WHEN 'update-requested' THEN coalesce(before_update, status)
        WHEN 'update-reverted' THEN NULL WHEN 'completed' THEN NULL ELSE before_update END,
    before_update_finished_at = CASE ?1
        WHEN 'update-requested' THEN coalesce(before_update_finished_at, finished_at)
        WHEN 'update-reverted' THEN NULL WHEN 'completed' THEN NULL ELSE before_update_finished_at END,
    cancel_requested_at = CASE WHEN ?4 THEN coalesce(cancel_requested_at, ?2) ELSE cancel_requested_at END,
    identified = max(identified, ?5)
WHERE task = ?6"""
MOVE_MONEY = """
UPDATE tasks SET
    held_at = coalesce(?, held_at),
    held_micros = held_micros + ?,
    charged_micros = charged_micros + ?,
    refunded_micros = refunded_micros + ?
WHERE task = ?"""
"""What a page moves of a task in all: no movement looks at its state, so it is one change and not one for each."""
ADD_PROVIDER_TASK = "INSERT OR IGNORE INTO provider_tasks VALUES (?, ?)"

_COLUMNS = """
    task, purpose, resolved_model, created_at, status, finished_at, cancel_requested_at, held_at,
    held_micros, charged_micros, refunded_micros,
    billed_came, identified, billed_high, billed_low"""
BILLED = len(_COLUMNS.split(",")) - 2
"""Where the two parts of what was billed are among them."""
PURPOSES_NUMBERED = """
SELECT purpose, account, contract, model, provider, school
FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN purposes ON purpose = wanted"""
BY_ID = f"SELECT {_COLUMNS} FROM tasks WHERE task IN ({', '.join(['?'] * READ_MAX)})"  # noqa: S608 - constants, here and below
BY_PROVIDER_ID = f"""
SELECT {_COLUMNS}, provider_task_id
FROM (SELECT value AS wanted FROM json_each(?))
CROSS JOIN provider_tasks ON provider_task_id = wanted JOIN tasks USING (task) JOIN purposes USING (purpose)
WHERE provider = ?"""  # noqa: S608 - constants are spliced in, values are parameters
BY_END = f"""
SELECT {_COLUMNS} FROM tasks JOIN purposes USING (purpose)
WHERE finished_at IS NOT NULL AND (finished_at, task) > (:at, :task) AND finished_at < :until AND provider = :provider
ORDER BY finished_at, task LIMIT :limit"""  # noqa: S608
IDS_BY_END = BY_END.replace(_COLUMNS, " task, finished_at", 1)
HELD = f"""
SELECT {_COLUMNS} FROM tasks
WHERE held_micros <> 0 AND task > :task AND (finished_at IS NOT NULL OR held_micros < 0 OR held_at < :held_before)
ORDER BY task LIMIT :limit"""  # noqa: S608
REFUNDED_TOO_MUCH = f"""
SELECT {_COLUMNS} FROM tasks WHERE task > :task AND refunded_micros > charged_micros ORDER BY task LIMIT :limit"""  # noqa: S608
OPEN_HOLDS = f"""
SELECT count(*), coalesce(sum(held_micros >> {LOW_BITS}), 0), coalesce(sum(held_micros & {(1 << LOW_BITS) - 1}), 0)
FROM tasks WHERE held_micros <> 0"""  # noqa: S608
"""The sum in two parts, as all sums of the books."""
