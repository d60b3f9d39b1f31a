"""What an error tells of its cause: the disk, or what lies on it."""

import errno
import sqlite3

_PRIMARY = 0xFF
"""Of SQLite's extended codes, the part that says what kind of error it is."""
_DISK_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def primary_code(error: BaseException) -> int | None:
    """SQLite's code of that kind of error; None: it does not come from SQLite, but from its driver, or elsewhere."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def is_of_disk(error: BaseException) -> bool:
    """Whether SQLite, or the system, says with it that the disk is full or errs."""
    return primary_code(error) in _DISK_CODES or (isinstance(error, OSError) and error.errno in _DISK_ERRNOS)
