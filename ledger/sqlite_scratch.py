"""A file on its way to a name: what is being made lies hidden beside it, and what a killed process left is swept away.

It holds content, the keys of its seals and the pepper, so it must not outlive whoever makes it. Who leaves in any way
takes it along; a process that is killed cannot. So beside it lies a file that is locked for as long as its process
lives: where that lock is free, whoever next makes something for the same name, or serves it, removes what is there. The
lock comes before the file, and goes after it, so there is never one without the other. Alternatives beaten: a process
id in the name, which another process may have by then, or a process on another machine; the lock on the file itself,
which on a network's disk SQLite would wait for; and files without a name (`O_TMPFILE`), beside which SQLite can keep
no write-ahead log.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from ledger.errors import CannotOpenError
from ledger.sqlite_copies import BESIDE, beside

ALIVE = ".alive"
"""What the name of the locked file ends in."""
TRIES_MAX = 100
"""As many sweepers as may come just between the making of that file and its lock."""


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty file beside *path* that only its owner may read, gone with all beside it when this is left.

    Raises:
        CannotOpenError: it cannot be made there.
    """
    sweep(path)
    try:
        alive_fd, made = _begun(path)
    except OSError as error:
        raise CannotOpenError(f"cannot write to {path.parent}: {error.strerror}") from error
    try:
        yield made
    finally:
        _remove(made)
        os.close(alive_fd)


def sweep(path: Path) -> None:
    """Remove what processes that are dead have left beside *path*; what cannot be removed stays for the next one."""
    for alive in path.parent.glob(f".{escape(path.name)}.*{ALIVE}"):
        with suppress(OSError):  # another was faster, or the lock is held, or this disk knows no locks
            alive_fd = os.open(alive, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(alive_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(alive.with_suffix(""))
            finally:
                os.close(alive_fd)


def _begun(path: Path) -> tuple[int, Path]:
    """A descriptor that holds the lock, and the file."""
    for _ in range(TRIES_MAX):
        alive_fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ALIVE, dir=path.parent)
        try:
            with suppress(OSError):  # on a disk that knows no locks nobody sweeps either
                fcntl.flock(alive_fd, fcntl.LOCK_EX)
            made = Path(name).with_suffix("")
            os.close(os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except BaseException:
            os.close(alive_fd)
            Path(name).unlink(missing_ok=True)
            raise
        if Path(name).exists():
            return alive_fd, made
        made.unlink()  # somebody took it for a dead one's before it was locked
        os.close(alive_fd)
    raise FileExistsError(None, "others sweep there all the time")


def _remove(made: Path) -> None:
    for end in ("", *BESIDE, ".lock", ALIVE):
        beside(made, end).unlink(missing_ok=True)
