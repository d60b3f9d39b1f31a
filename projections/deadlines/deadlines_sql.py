"""The SQL of the deadlines: their schema, and each statement as one whole text."""

from projections.side_file import Shape

_SCHEMA = """
CREATE TABLE kinds (
    kind INTEGER PRIMARY KEY, contract TEXT NOT NULL, model TEXT NOT NULL, UNIQUE (contract, model)
) STRICT;
CREATE TABLE live (
    task BLOB PRIMARY KEY,
    kind INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'stalled')),
    expires_at INTEGER,
    heard_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX live_by_deadline ON live (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX live_by_silence ON live (kind, heard_at) WHERE state = 'running';
CREATE INDEX live_stalled ON live (task) WHERE state = 'stalled';
CREATE TABLE late (
    task BLOB NOT NULL, reported TEXT NOT NULL, claimed_micros INTEGER, position INTEGER NOT NULL,
    PRIMARY KEY (task, reported)
) STRICT, WITHOUT ROWID;
CREATE INDEX late_by_position ON late (position);
CREATE TABLE seen_to (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL) STRICT;
"""
SHAPE = Shape("deadlines", 0x544C444C, 1, _SCHEMA, ("kinds", "live", "late", "seen_to"))  # "TLDL"

KINDS = "SELECT kind, contract, model FROM kinds"
ADD_KIND = "INSERT INTO kinds (contract, model) VALUES (?, ?)"
BEGIN = "INSERT OR IGNORE INTO live VALUES (?, ?, ?, 'queued', ?, NULL)"
STEP = """
UPDATE live SET
    version = ?2,
    state = CASE
        WHEN ?3 = 'update-requested' THEN 'queued'
        WHEN ?3 IN ('started', 'progressed') OR (?3 = 'charged' AND state = 'stalled') THEN 'running'
        WHEN ?3 = 'stalled' THEN 'stalled'
        ELSE state END,
    heard_at = CASE
        WHEN ?3 = 'update-requested' THEN NULL
        WHEN ?3 IN ('started', 'progressed') OR (?3 = 'charged' AND state <> 'queued') THEN ?4
        ELSE heard_at END
WHERE task = ?1"""
END = "DELETE FROM live WHERE task = ?"
HEARD = "UPDATE live SET heard_at = ?2 WHERE task = ?1 AND heard_at < ?2"

EXPIRED = "SELECT task FROM live WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
SILENT = """
SELECT task, version, heard_at FROM json_each(?) AS bound
CROSS JOIN live ON kind = json_extract(bound.value, '$[0]') AND state = 'running'
    AND heard_at <= json_extract(bound.value, '$[1]')
LIMIT ?"""
"""The bounds are pairs of a kind and a time."""
STALLED_COUNT = "SELECT count(*) FROM live WHERE state = 'stalled'"
STALLED = {
    False: "SELECT task FROM live WHERE state = 'stalled' AND (?1 IS NULL OR task < ?1) ORDER BY task DESC LIMIT ?2",
    True: "SELECT task FROM live WHERE state = 'stalled' AND (?1 IS NULL OR task > ?1) ORDER BY task LIMIT ?2",
}
"""By whether the oldest come first."""

ADD_LATE = "INSERT OR REPLACE INTO late VALUES (?, ?, ?, ?)"
"""Of several reports of a task that say the same, the last one counts."""
SEEN_TO = "SELECT position FROM seen_to"
SEE_TO = "INSERT OR REPLACE INTO seen_to VALUES (1, ?)"
LATE_SINCE = "SELECT task, position FROM late WHERE position > ? ORDER BY position LIMIT ?"
LATE_OF = "SELECT task, reported, claimed_micros FROM late WHERE task BETWEEN ? AND ? ORDER BY task, position"
LATE_TASKS = "SELECT DISTINCT task FROM late WHERE ?1 IS NULL OR task > ?1 ORDER BY task LIMIT ?2"
