"""The accountants' own programs: what they say of a journal. Beancount comes with the tests, hledger where it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HLEDGER = shutil.which("hledger")
needs_hledger = pytest.mark.skipif(HLEDGER is None, reason="no hledger here: Debian's package of that name has it")
BEAN_CHECK = Path(sys.executable).with_name("bean-check")


def beancount_says(journal: str, folder: Path) -> tuple[int, str]:
    """The exit code of ``bean-check``, and what it printed."""
    file = folder / "books.beancount"
    file.write_text(journal)
    return _ran(str(BEAN_CHECK), "--no-cache", str(file))


def hledger_says(journal: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of ``hledger``, and what it printed."""
    assert HLEDGER is not None
    file = folder / "books.journal"
    file.write_text(journal)
    return _ran(HLEDGER, *arguments, "--file", str(file))


def _ran(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
