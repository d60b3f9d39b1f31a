"""R-05: the disk fills up at any write of a verb: nothing half done has its final name, and one is told what to do."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import stored
from tests.processes import ROOT
from tests.test_cli import Ended, Shell

DISK_BYTES = 4 * 2**20
STEP_BYTES = 4096
"""In such steps a file of that file system grows."""
NEXT = "; make room there, or see to the disk, and do it again\n"
SIZES = [
    pytest.param(20 * STEP_BYTES, id="some places"),
    pytest.param(STEP_BYTES, id="every place", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]


class Verb(NamedTuple):
    """What is typed in, and what is to be made by it."""

    arguments: tuple[str, ...]
    makes: str


MAKERS = {
    "backup": Verb(("backup", "--output", "{disk}/backup.db"), "backup.db"),
    "restore": Verb(("restore", "{store}", "--store", "sqlite:{disk}/restored.db"), "restored.db"),
    "restore --until": Verb(
        ("restore", "{store}", "--until", "100", "--store", "sqlite:{disk}/restored.db"), "restored.db"
    ),
    "import": Verb(("import", "{export}", "--store", "sqlite:{disk}/imported.db"), "imported.db"),
    "checkpoint --output": Verb(("checkpoint", "--output", "{disk}/checkpoint.note"), "checkpoint.note"),
    "a new key": Verb(("checkpoint", "--verifier-key", "--key", "{disk}/key"), "key"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def store(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.db"
    shutil.copyfile(original, path)
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{path}")
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder))
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


def leave(disk: Path, free_bytes: int) -> None:
    """Let there be so much room on *disk*, and nothing but what takes the rest."""
    for old in disk.iterdir():
        old.unlink()
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - free_bytes))


def made_on(disk: Path) -> set[str]:
    return {path.name for path in disk.iterdir()} - {"ballast"}


def export(store: Path, to: Path) -> tuple[int, str]:
    """Export the store into a file, as a shell would do it; the exit code, and what is said."""
    command = (sys.executable, "-m", "scripts.export", "--store", f"sqlite:{store}")
    with to.open("wb") as file:
        done = subprocess.run(
            command, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("step_bytes", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_r05_wherever_the_disk_is_full_there_is_no_half_a_file_and_with_room_the_same_line_makes_it(
    *, store: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, step_bytes: int
) -> None:
    shell, verb, told = Shell(capsys), MAKERS[name], tmp_path / "log.jsonl"
    export(store, told)
    shell("checkpoint", "--verifier-key")  # so that no key is made on the way
    before = store.read_bytes()
    line = [part.format(disk=disk, store=store, export=told) for part in verb.arguments]
    for failed, free_bytes in enumerate(range(0, DISK_BYTES, step_bytes)):  # noqa: B007 - how many came before
        leave(disk, free_bytes)
        ended = shell(*line)
        if ended.code == 0:
            break
        assert ended == Ended(ended.code, "", ended.err)
        assert ended.code in {2, 3}
        assert ended.err.startswith("task-ledger: ")
        assert ended.err.endswith(NEXT)
        assert ended.err.count("\n") == 1
        assert made_on(disk) <= {f"{verb.makes}.lock"}
    assert ended.code == 0
    assert failed > 0
    assert made_on(disk) - {f"{verb.makes}.lock"} == {verb.makes}
    assert store.read_bytes() == before


def test_r05_on_a_full_disk_the_last_checkpoint_that_was_kept_stays(
    store: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell, ledger = Shell(capsys), disk / "ledger.db"
    shutil.copyfile(store, ledger)
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{ledger}")
    assert shell("checkpoint").code == 0
    kept, output = disk / "ledger.db.checkpoint", disk / "given.note"
    output.write_text("what was given out before")
    before = kept.read_bytes()
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
    ended = shell("checkpoint", "--output", str(output))
    assert (ended.code, ended.err.endswith(NEXT)) == (2, True)
    assert (kept.read_bytes(), output.read_text()) == (before, "what was given out before")
    (disk / "ballast").unlink()
    assert shell("checkpoint", "--output", str(output)).code == 0
    assert output.read_bytes() == kept.read_bytes()
    assert not [name for name in made_on(disk) if name.startswith(".")], "no draft is left"


@pytest.mark.parametrize("free_bytes", [0, STEP_BYTES, 10 * STEP_BYTES])
def test_r05_an_export_that_does_not_fit_says_so_and_is_no_export(
    store: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], free_bytes: int
) -> None:
    leave(disk, free_bytes)
    code, said = export(store, disk / "log.jsonl")
    assert (code, said) == (3, f"task-ledger: cannot write: No space left on device{NEXT}")
    ended = Shell(capsys)("import", str(disk / "log.jsonl"), "--store", f"sqlite:{tmp_path / 'imported.db'}")
    assert ended.code == 1
    assert not (tmp_path / "imported.db").exists()
