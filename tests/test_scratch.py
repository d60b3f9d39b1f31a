"""What is on its way to a name: gone when it is over, and swept away by the next one when its process was killed."""

import asyncio
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.errors import CannotOpenError
from ledger.sqlite import open_to_serve
from ledger.sqlite_copies import BESIDE, beside
from ledger.sqlite_scratch import ALIVE, scratch, sweep
from scripts.backup import back_up
from tests import stored
from tests.processes import ROOT

MAKES = """
import sys
from pathlib import Path
from ledger.sqlite_copies import BESIDE, beside
from ledger.sqlite_scratch import scratch
with scratch(Path(sys.argv[1])) as made:
    for end in ("", *BESIDE, ".lock"):
        beside(made, end).write_bytes(b"content and keys")
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@contextmanager
def maker(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, in the middle of making *path*."""
    command = [sys.executable, "-c", MAKES, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as making:
        assert making.stdout is not None
        making.stdout.readline()
        yield making
        making.kill()


def killed(path: Path) -> list[Path]:
    """What a process leaves that is killed in the middle of making *path*."""
    with maker(path) as making:
        making.kill()
        making.wait(60)
    found = [one for one in left(path) if one.name.startswith(f".{path.name}.")]
    assert len(found) == len(BESIDE) + 3
    return found


def left(path: Path) -> list[Path]:
    return sorted(path.parent.glob(".*"))


def serve(path: Path) -> None:
    async def opened() -> None:
        await (await open_to_serve(path)).close()

    asyncio.run(opened())


def back_up_there(path: Path) -> None:
    source = path.with_name("source.db")
    serve(source)
    back_up(source, path)


def test_it_is_its_owners_alone_and_gone_with_all_beside_it(path: Path) -> None:
    with scratch(path) as made:
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert made.parent == path.parent
        for end in BESIDE:
            beside(made, end).touch()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("by", [sweep, serve, back_up_there])
def test_what_a_killed_process_left_is_removed_by_whoever_is_next(path: Path, by: Callable[[Path], None]) -> None:
    killed(path)
    by(path)
    assert left(path) == []


def test_what_others_are_making_is_left_alone(path: Path) -> None:
    dead = killed(path)
    with maker(path), scratch(path) as own, scratch(path) as another:
        sweep(path)
        assert own.exists()
        assert another.exists()
        assert set(left(path)).isdisjoint(dead)
        assert len(left(path)) == len(dead) + 4


def test_what_was_left_beside_another_name_or_is_not_ours_stays(path: Path) -> None:
    other = killed(path.with_name("other.db"))
    mine = [
        path.with_name(name) for name in (".ledger.db", ".ledger.db.mine", "ledger.db.x.alive", ".ledger-db.x.alive")
    ]
    for one in mine:
        one.write_bytes(b"mine")
    sweep(path)
    assert all(one.exists() for one in (*other, *mine))


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    other, odd = killed(tmp_path / "a.db"), tmp_path / "[a].db"
    killed(odd)
    sweep(tmp_path / "*")
    sweep(odd)
    assert left(odd) == other


def test_of_many_who_make_and_sweep_at_once_nobody_loses_what_is_his(path: Path) -> None:
    def make(number: int) -> bool:
        with scratch(path) as made:
            made.write_bytes(b"%d" % number)
            sweep(path)
            return made.read_bytes() == b"%d" % number

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(make, range(400)))
    assert left(path) == []


def test_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotOpenError, match=r"cannot write to .*: No such file"), scratch(tmp_path / "none" / "x.db"):
        pass


@pytest.mark.parametrize("verb", ["restore", "import"])
def test_what_a_killed_verb_left_is_gone_once_it_is_done_again(path: Path, verb: str) -> None:
    """Killed as soon as there is something in its copy."""
    source, target = path, path.with_name("target") / "ledger.db"
    target.parent.mkdir()
    stored.make(source)
    program = [sys.executable, "-m", "scripts.cli"]
    if verb == "import":
        lines = subprocess.run(
            [*program, "export", "--store", f"sqlite:{source}"], cwd=ROOT, check=True, stdout=-1
        ).stdout
        source = path.with_name("log.jsonl")
        source.write_bytes(lines)
    command = [*program, verb, str(source), "--store", f"sqlite:{target}"]
    with subprocess.Popen(command, cwd=ROOT) as doing:
        while doing.poll() is None and not any(one.stat().st_size for one in target.parent.glob(f".*[!{ALIVE[-1]}]")):
            time.sleep(0.001)
        doing.send_signal(signal.SIGKILL)
    assert doing.returncode == -signal.SIGKILL, "it was too fast to be killed"
    assert left(target)
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(one.name for one in target.parent.iterdir()) == ["ledger.db", "ledger.db.lock"]
