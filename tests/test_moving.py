"""Export and import: the log as lines of JSON, and out of them the same views, totals, positions and hashes again."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import GENESIS, Place, link
from ledger.cursors import position_cursor
from ledger.ids import Spelling, TaskId
from ledger.keyring import Keyring
from ledger.keys import Role, parse
from ledger.sqlite import open_to_read
from projections.transfer.log_lines import ClaimLine, EventLine, as_cloud_event, decode, recorded
from scripts.cli import EXIT_INTERRUPT
from tests import stored
from tests.builders import ACCOUNT, complete, create, delete, ident, start
from tests.processes import ROOT
from tests.test_backup import audited, events, log_id, tables
from tests.test_cli import Ended, Shell


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    stored.make(path)
    return path


@pytest.fixture
def path(original: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASK_LEDGER_STORE", f"sqlite:{original}")
    return original


@pytest.fixture
def shell(path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert path.exists()
    return Shell(capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "imported" / "ledger.db"


def exported(shell: Shell, *options: str) -> list[str]:
    ended = shell("export", *options)
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


def brought_in(shell: Shell, file: Path, target: Path, lines: list[str], *options: str) -> Ended:
    file.write_text("".join(f"{line}\n" for line in lines))
    target.parent.mkdir(exist_ok=True)
    return shell("import", str(file), "--store", f"sqlite:{target}", *options)


@pytest.mark.parametrize("how", ["jsonl", "cloudevents"])
def test_an_import_is_the_exported_store_row_for_row_under_another_name(
    *, shell: Shell, path: Path, file: Path, target: Path, how: str
) -> None:
    ended = brought_in(shell, file, target, exported(shell, "--format", how), "--json")
    (told,) = ended.objects
    assert (ended.code, told["imported"], told["same"], told["proven"]) == (0, True, True, True)
    assert tables(target) == tables(path)
    assert audited(target) == audited(path)
    assert log_id(target) == told["log_id"] != log_id(path)
    assert (told["from_log_id"], told["from_head"]) == (log_id(path), audited(path).head)


def test_an_import_opens_for_the_keys_of_the_store_that_was_exported(
    tmp_path: Path, file: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.db"

    async def issue() -> str:
        async with stored.serving(path) as ledger:
            new = await ledger.keys.issue(account=ACCOUNT, contract="chunkr", role=Role.CLIENT, by="test", at_us=1)
            return new.key

    text = asyncio.run(issue())
    shell = Shell(capsys)
    lines = exported(shell, "--store", f"sqlite:{path}")
    assert parse(text) is not None
    assert text.rpartition("_")[2] not in "".join(lines), "its secret is nowhere"
    assert brought_in(shell, file, target, lines).code == 0

    async def opens() -> bool:
        engine = await open_to_read(target)
        token = parse(text)
        assert token is not None
        try:
            return await Keyring(engine).holder(token, at_us=1) is not None
        finally:
            await engine.close()

    assert asyncio.run(opens())


@pytest.mark.parametrize("how", ["jsonl", "cloudevents"])
def test_whatever_name_a_customer_chose_it_is_taken_for_no_envelope(
    *, tmp_path: Path, file: Path, target: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path, shell = tmp_path / "ledger.db", Shell(capsys)

    async def make() -> None:
        async with stored.serving(path) as ledger:
            await ledger.handle(create(ident(1), out_task_id="specversion"))

    asyncio.run(make())
    ended = brought_in(shell, file, target, exported(shell, "--store", f"sqlite:{path}", "--format", how))
    assert (ended.code, ended.err) == (0, "")
    assert tables(target) == tables(path)


def test_cursors_of_the_exported_log_are_good_in_the_imported_one(
    shell: Shell, path: Path, file: Path, target: Path
) -> None:
    brought_in(shell, file, target, exported(shell))
    end = len(events(path))
    for position, code in ((0, 0), (17, 0), (end, 0), (end + 1, 2)):
        cursor = position_cursor(log_id(path), position)
        assert shell("tail", "--store", f"sqlite:{target}", "--from", cursor).code == code


def test_an_export_up_to_a_position_is_imported_as_the_log_up_to_there(
    shell: Shell, path: Path, file: Path, target: Path
) -> None:
    log = events(path)
    until = next(row.position for row in reversed(log) if row.entry.type == "deleted")
    (told,) = brought_in(shell, file, target, exported(shell, "--until", str(until)), "--json").objects
    assert (told["imported"], told["same"], told["proven"], told["position"]) == (True, True, None, until)
    assert [row.hash for row in events(target)] == [row.hash for row in log[:until]]
    assert audited(target).found == 0


def test_content_that_was_erased_is_not_in_an_export_and_stays_erased(
    tmp_path: Path, file: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.db"

    async def make() -> bytes:
        async with stored.serving(path) as ledger:
            await ledger.handle(create(ident(1), input={"prompt": "a very particular harbour"}))
            key = (await ledger.engine.tasks([ident(1)]))[ident(1)].seal_key
            assert key is not None
            for command in (start(ident(1)), complete(ident(1)), delete(ident(1))):
                await ledger.handle(command)
            return key

    key, shell = asyncio.run(make()), Shell(capsys)
    lines = exported(shell, "--store", f"sqlite:{path}")
    assert base64.b64encode(key).decode() not in "".join(lines)
    assert brought_in(shell, file, target, lines).code == 0
    assert tables(target) == tables(path)


def test_an_export_that_ends_before_an_erasure_is_told_to_go_further(
    shell: Shell, path: Path, file: Path, target: Path
) -> None:
    log = events(path)
    erased = next(row for row in reversed(log) if row.entry.type == "deleted")
    ended = brought_in(shell, file, target, exported(shell, "--until", str(erased.position - 1)))
    assert ended.code == 1
    assert f"before the content of task {Spelling.UUID.spell(TaskId(erased.stream))} was erased" in ended.err
    assert not target.exists()


# What is printed


def test_an_export_begins_with_its_log_and_ends_with_its_end(shell: Shell, path: Path) -> None:
    first, *between, last = (json.loads(line) for line in exported(shell))
    assert (first["line"], first["log_id"], first["after"]) == ("log", log_id(path), 0)
    kinds = [one["line"] for one in between]
    assert kinds == sorted(kinds, key=["event", "claim"].index)
    assert (last["line"], last["events"], last["claims"]) == ("end", kinds.count("event"), kinds.count("claim"))
    assert (last["position"], last["hash"]) == (len(events(path)), audited(path).head)


def test_each_line_can_be_a_cloud_event(shell: Shell, path: Path) -> None:
    told = [json.loads(line) for line in exported(shell, "--format", "cloudevents")]
    assert [one["data"] for one in told] == [json.loads(line) for line in exported(shell)]
    assert {(one["specversion"], one["datacontenttype"]) for one in told} == {("1.0", "application/json")}
    assert {one["source"] for one in told} == {f"urn:task-ledger:log:{log_id(path)}"}
    assert len({one["id"] for one in told}) == len(told)
    created = next(one for one in told if one["type"] == "task-ledger.created")
    assert created["subject"].replace("-", "") == created["data"]["stream"]
    assert created["time"].endswith("Z")


def test_each_claim_is_a_cloud_event_with_an_id_of_its_own_whatever_its_parts_hold() -> None:
    texts = ("a", "a/b", "a-create", "create", "create-x", "x", "b/create", "%2F", "/", "ключ", "ключ/x", "")
    ids = {
        as_cloud_event(
            ClaimLine(
                account=account,
                operation=operation,
                key=key,
                fingerprint="",
                task="",
                version=1,
                appended=True,
                at_us=1,
            ),
            "log",
        )["id"]
        for account in texts
        for operation in texts
        for key in texts
    }
    assert len(ids) == len(texts) ** 3
    assert all(one.isascii() and one.isprintable() for one in ids)


def test_an_export_whose_claims_have_the_ids_of_before_is_imported_as_well(
    shell: Shell, file: Path, target: Path
) -> None:
    lines = exported(shell, "--format", "cloudevents")
    before = [line.replace('"id":"claim/', '"id":"claim-') for line in lines]
    assert before != lines
    assert brought_in(shell, file, target, before).code == 0


def test_an_export_from_a_cursor_has_what_follows_it_and_is_no_whole_log(
    shell: Shell, path: Path, file: Path, target: Path
) -> None:
    lines = exported(shell, "--from", position_cursor(log_id(path), 290))
    positions = [one["position"] for line in lines if (one := json.loads(line))["line"] == "event"]
    assert positions == list(range(291, len(events(path)) + 1))
    ended = brought_in(shell, file, target, lines)
    assert ended.code == 1
    assert "line 1: an export that begins after position 290: an import needs all of the log" in ended.err


BAD_BOUNDS = [
    (("--from", "nonsense"), "no cursor of this log"),
    (("--until", "100000"), "the log ends at position"),
    (("--format", "xml"), "--format"),
]


@pytest.mark.parametrize(("options", "told"), BAD_BOUNDS)
def test_bounds_that_are_none_are_wrong_use(shell: Shell, options: tuple[str, ...], told: str) -> None:
    ended = shell("export", *options)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_a_cursor_beyond_the_position_to_end_at_is_wrong_use(shell: Shell, path: Path) -> None:
    ended = shell("export", "--from", position_cursor(log_id(path), 50), "--until", "49")
    assert ended.code == 2
    assert "the cursor lies at 50, beyond 49" in ended.err


# What is no export

Lines = list[str]


def changed(kind: str, **fields: Any) -> Callable[[Lines], Lines]:  # noqa: ANN401 - fields of the line
    """The lines, the fifth (or only) one of the *kind* having other *fields*."""

    def change(lines: Lines) -> Lines:
        at = [number for number, line in enumerate(lines) if json.loads(line)["line"] == kind][:5][-1]
        told = json.loads(lines[at]) | fields
        return [*lines[:at], json.dumps(told, separators=(",", ":")), *lines[at + 1 :]]

    return change


def claims_at(lines: Lines) -> int:
    """The number of the first claim's line."""
    return next(number for number, line in enumerate(lines) if json.loads(line)["line"] == "claim")


TAMPERED: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "another amount": (changed("event", amount_micros=1), "is not what was written"),
    "another account": (changed("event", account="umbrella"), "is not what was written"),
    "other facts": (changed("event", facts={"type": "started", "at_us": 1}), "is not what was written"),
    "another payload": (changed("event", payload="AAAA", key=None), "is not what was written"),
    "another time": (changed("event", recorded_at_us=1), "is not what was written"),
    "a stream that is none": (changed("event", stream="zz"), "cannot be read"),
    "a number out of bounds": (changed("event", version=2**40), "cannot be read"),
    "another end": (changed("end", hash="00"), "ends with another event"),
    "fewer claims": (changed("end", claims=1), "events and 1 claims told"),
    "other views": (
        changed(
            "end",
            proof={
                "tasks": 12,
                "views": "00",
                "accounts": "00",
                "held_micros": 0,
                "charged_micros": 0,
                "refunded_micros": 0,
            },
        ),
        "",
    ),
    "another past": (
        changed("log", lineage=[{"log_id": "0123456789abcdef", "position": 7, "hash": "00"}]),
        "called '0123456789abcdef' up to position 7, and there is another hash there",
    ),
    "no beginning": (lambda lines: lines[1:], "no export of a log begins so"),
    "nothing": (lambda _: [], "no export of a log begins so"),
    "no end": (lambda lines: lines[:-1], "the file was cut short"),
    "half a line": (lambda lines: [*lines[:40], lines[40][:50]], "cannot be read"),
    "an event left out": (lambda lines: lines[:30] + lines[31:], "position 31 follows 29"),
    "an event twice": (lambda lines: lines[:31] + lines[30:], "position 30 follows 30"),
    "two events changed places": (lambda lines: [*lines[:30], lines[31], lines[30], *lines[32:]], "position 31"),
    "another format": (changed("log", format=2), "an export of format 2"),
    "no JSON": (lambda _: ["not JSON"], "cannot be read"),
    "a claim twice, and the last one not": (
        lambda lines: [*lines[: claims_at(lines) + 1], *lines[claims_at(lines) : -2], lines[-1]],
        "or a second time",
    ),
    "claims before their events": (
        lambda lines: [lines[0], *lines[claims_at(lines) : -1], *lines[1 : claims_at(lines)], lines[-1]],
        "an event follows the claims",
    ),
    "two exports in one file": (lambda lines: lines + lines, "the export ends here, and the file goes on"),
    "another log in the middle": (
        lambda lines: [*lines[:30], lines[0], *lines[30:]],
        "a log begins in the middle of another",
    ),
    "another kind of line": (lambda lines: [*lines[:5], '{"line":"mine"}', *lines[5:]], "cannot be read"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_not_what_was_exported_is_told_and_not_imported(
    *, shell: Shell, file: Path, target: Path, what: str
) -> None:
    change, told = TAMPERED[what]
    ended = brought_in(shell, file, target, change(exported(shell)))
    assert ended.code == 1, ended
    assert told in ended.err
    assert [one.name for one in target.parent.iterdir()] == ["ledger.db.lock"]


def test_a_key_that_opens_nothing_is_not_imported(shell: Shell, file: Path, target: Path) -> None:
    lines = exported(shell)
    at = next(number for number, line in enumerate(lines) if json.loads(line).get("key"))
    wrong = json.loads(lines[at])["key"]
    lines[at] = lines[at].replace(wrong, base64.b64encode(bytes(32)).decode())
    ended = brought_in(shell, file, target, lines)
    assert ended.code == 1
    assert "does not open under the task's key" in ended.err


def test_an_import_wants_a_place_where_there_is_nothing(shell: Shell, file: Path, target: Path) -> None:
    lines = exported(shell)
    target.parent.mkdir()
    target.write_bytes(b"mine")
    ended = brought_in(shell, file, target, lines)
    assert (ended.code, target.read_bytes()) == (2, b"mine")


IN_THE_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
"""As a script starts what ends in ``&``: with SIGINT ignored."""


@pytest.mark.parametrize("started", [(), IN_THE_BACKGROUND], ids=["in front", "in the background"])
@pytest.mark.parametrize("program", [("scripts.cli", "import"), ("scripts.import",)], ids=len)
def test_an_import_that_is_told_to_end_leaves_no_copy_behind(
    shell: Shell, target: Path, program: tuple[str, ...], started: tuple[str, ...]
) -> None:
    target.parent.mkdir()
    command = [*started, sys.executable, "-m", *program, "-", "--store", f"sqlite:{target}"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as importing:
        assert importing.stdin is not None
        importing.stdin.write("\n".join(exported(shell)[:40]).encode())
        importing.stdin.flush()
        while importing.poll() is None and "-wal" not in {one.name[-4:] for one in target.parent.iterdir()}:
            time.sleep(0.01)
        importing.send_signal(signal.SIGTERM)
        importing.stdin.close()  # it may be reading there
        assert importing.wait(60) == EXIT_INTERRUPT
    assert [one.name for one in target.parent.iterdir()] == ["ledger.db.lock"]


# A log that has to be placed anew


def test_a_log_of_many_lanes_is_placed_and_chained_anew_and_gives_the_same_views_and_totals(
    shell: Shell, path: Path, file: Path, target: Path
) -> None:
    lines = in_lanes(exported(shell), 4)
    (told,) = brought_in(shell, file, target, lines, "--json").objects
    assert (told["imported"], told["same"], told["proven"]) == (True, False, True)
    assert audited(target).found == 0
    assert told["from_head"] != told["head"]
    views = [row[-1] for row in tables(path)["tasks"]]
    assert sorted(views, key=repr) == sorted((row[-1] for row in tables(target)["tasks"]), key=repr)
    cursor = position_cursor(log_id(path), 1)
    assert shell("tail", "--store", f"sqlite:{target}", "--from", cursor).code == 2, "a place of another order"


def in_lanes(lines: Lines, count: int) -> Lines:
    """The export as another engine would have written it, which gives each stream one of so many lanes."""
    hashes, positions, last = [GENESIS] * count, [0] * count, ""
    moved = []
    for line in lines:
        told = decode(line.encode())
        if isinstance(told, EventLine):
            row = recorded(told)
            lane = row.stream[-2] % count
            positions[lane] += 1
            place = Place(lane, positions[lane], row.stream, row.version, row.account)
            hashes[lane] = link(hashes[lane], place, row.entry)
            last = hashes[lane].hex()
            for name, old, new in (
                ("lane", told.lane, lane),
                ("position", told.position, positions[lane]),
                ("hash", f'"{told.hash}"', f'"{last}"'),
            ):
                assert f'"{name}":{old}' in line
                line = line.replace(f'"{name}":{old}', f'"{name}":{new}', 1)  # noqa: PLW2901 - its text, moved
        elif json.loads(line)["line"] == "end":
            line = json.dumps(json.loads(line) | {"hash": last})  # noqa: PLW2901 - the same
        moved.append(line)
    return moved
