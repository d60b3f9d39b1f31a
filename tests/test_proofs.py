"""Proofs: one file and a key show what stands in the log, and nothing that was changed afterwards is shown by any."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pymerkle.proof import InclusionProof

from ledger.chain import GENESIS, Place, link
from ledger.engine import Engine
from ledger.errors import DamagedError
from ledger.ledger import Ledger
from ledger.memory import MemoryEngine
from ledger.merkle import EMPTY_ROOT, Reading, Tree, leaf_hash
from ledger.notes import Checkpoint, NoteError, SignerKey, VerifierKey, sign_checkpoint
from ledger.proofs import Proof, Proven, UnprovenError, check
from ledger.records import Recorded
from projections import follow
from projections.audit.prove import NotThisLogError, prove, tree_of
from tests import stored
from tests.builders import cancel, create, delete, ident, start

KEY = SignerKey("example.com/ledger", bytes(range(32)))
OTHER = SignerKey("example.com/other", bytes(range(32)))
VERIFIER = KEY.verifier


async def noted(engine: Engine, key: SignerKey = KEY) -> str:
    return sign_checkpoint(await tree_of(engine), key)


def file(proof: Proof) -> bytes:
    return msgspec.json.encode(proof)


def checked(proof: Proof, key: VerifierKey = VERIFIER, **asked: Any) -> Proven:  # noqa: ANN401 - as `check`
    return check(file(proof), key, **asked)


@pytest.fixture
async def log(engine: Engine) -> Engine:
    """A log with something of everything in it."""
    await stored.fill(engine)
    return engine


# What is proven


async def test_every_event_of_a_log_is_proven_by_one_file(log: Engine) -> None:
    rows = await log.after(0, 10_000)
    proof = await prove(log, await noted(log), positions=[row.position for row in rows])
    proven = checked(proof)
    assert [replace(row, seal_key=None) for row in rows] == proven.events
    assert proven.checkpoint == Checkpoint(KEY.name, Tree(len(rows), (await tree_of(log)).root))


async def test_a_leaf_is_the_link_of_its_row(log: Engine) -> None:
    reading = Reading()
    for row in await log.after(0, 10_000):
        reading.add(row.hash)
    assert await tree_of(log) == (reading.size, reading.root)


async def test_a_deleted_task_s_events_are_proven_and_give_nothing_of_its_content_back(ledger: Ledger) -> None:
    task, note = ident(1), ""
    for command in (create(task), cancel(task), delete(task)):
        await ledger.handle(command)
        note = await noted(ledger.engine)
    rows = await ledger.engine.streams([task])
    assert any(row.is_erased for row in rows)
    proven = checked(await prove(ledger.engine, note, positions=[row.position for row in rows]))
    assert [row.entry.type for row in proven.events] == ["created", "held", "cancel-requested", "cancelled",
                                                        "released", "deleted"]  # fmt: skip
    assert all(row.payload is None for row in proven.events)


async def test_that_a_log_only_grew_is_proven_from_each_of_its_checkpoints(ledger: Ledger) -> None:
    notes = [await noted(ledger.engine)]
    for number in range(6):
        await ledger.handle(create(ident(number)))
        await ledger.handle(start(ident(number)))
        notes.append(await noted(ledger.engine))
    for at, later in enumerate(notes):
        for earlier in notes[: at + 1]:
            proven = checked(await prove(ledger.engine, later, earlier=earlier))
            assert proven.earlier is not None
            assert proven.earlier.tree.size <= proven.checkpoint.tree.size
            assert checked(await prove(ledger.engine, later, earlier=earlier), since=proven.earlier) == proven


async def test_an_event_is_proven_against_an_older_checkpoint_too(ledger: Ledger) -> None:
    await ledger.handle(create(ident(1)))
    note = await noted(ledger.engine)
    await ledger.handle(create(ident(2)))
    assert checked(await prove(ledger.engine, note, positions=[1])).checkpoint.tree.size == 2


async def test_another_hand_s_library_takes_the_paths(log: Engine) -> None:
    size, root = await tree_of(log)
    proof = await prove(log, await noted(log), positions=range(1, size + 1))
    for event, row in zip(proof.events, await log.after(0, size), strict=True):
        leaf = leaf_hash(row.hash)
        rule = _rule(event.position, size)
        theirs = InclusionProof("sha256", True, size, event.position, rule, [leaf, *event.path])  # noqa: FBT003 - theirs
        theirs.verify(leaf, root, index=event.position, size=size)


def _rule(position: int, size: int) -> list[int]:
    """On which side each step of the path lies, as pymerkle writes it: the leaf's own first, then from the leaf up."""
    start, end, side, rule = 0, size, 0, list[int]()
    while end - start > 1:
        k = 1 << (end - start - 1).bit_length() - 1
        rule.append(side)
        if position - 1 < start + k:
            end, side = start + k, 0
        else:
            start, side = start + k, 1
    return [side, *rule[::-1]]


# What a customer does with it, offline


PLAIN = """
import base64, hashlib, json, struct, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

proof, key = json.load(open(sys.argv[1])), sys.argv[2]
sha, b64 = lambda raw: hashlib.sha256(raw).digest(), base64.b64decode
text, _, signature = proof["checkpoint"].rpartition("\\n\\n")
Ed25519PublicKey.from_public_bytes(b64(key.split("+", 2)[2])[1:]).verify(
    b64(signature.split(" ")[2])[4:], (text + "\\n").encode())
size, root = int(text.split("\\n")[1]), b64(text.split("\\n")[2])
for e in proof["events"]:
    field = lambda raw: struct.pack(">I", len(raw)) + raw
    row = struct.pack(">HQ16sIqq", e["lane"], e["position"], bytes.fromhex(e["stream"]), e["version"],
                      e["recorded_at_us"], e["effective_at_us"])
    row += struct.pack(">?q", e["amount_micros"] is not None, e["amount_micros"] or 0)
    row += b"".join(field(e[name].encode()) for name in ("type", "account", "actor", "request_id", "facts"))
    row += b"" if e["payload"] is None else field(b64(e["payload"]))
    hash, at, last = sha(b"\\0" + sha(b64(e["previous"]) + row)), e["position"] - 1, size - 1
    for step in map(b64, e["path"]):
        if at % 2 or at == last:
            hash = sha(b"\\1" + step + hash)
            while at and at % 2 == 0:
                at, last = at // 2, last // 2
        else:
            hash = sha(b"\\1" + hash + step)
        at, last = at // 2, last // 2
    assert (hash, last) == (root, 0), e["position"]
print("proven", len(proof["events"]), "of", size)
"""
"""What the README says a proof is, written anew, from the words, without a line of ours."""


async def test_thirty_lines_of_python_check_a_proof_without_a_line_of_ours(log: Engine, tmp_path: Path) -> None:
    size = (await tree_of(log)).size
    proof = await prove(log, await noted(log), positions=range(1, size + 1))
    path = tmp_path / "proof.json"
    path.write_bytes(file(proof))

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", textwrap.dedent(PLAIN), str(path), str(VERIFIER)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run().stdout == f"proven {size} of {size}\n"
    path.write_bytes(file(replace(proof, events=(replace(proof.events[0], account="somebody"),))))
    assert "AssertionError: 1" in run().stderr


# What is not proven


@pytest.fixture
async def proof() -> Proof:
    """Of a task's life, in a log that has grown."""
    engine = MemoryEngine()
    await stored.fill(engine)
    size = (await engine.head()).position
    half = Reading()
    for row in (await engine.after(0, size))[: size // 2]:
        half.add(row.hash)
    earlier = sign_checkpoint(Tree(half.size, half.root), KEY)
    rows = await engine.streams([ident(0)])
    return await prove(engine, await noted(engine), positions=[row.position for row in rows], earlier=earlier)


def test_the_proof_that_the_others_are_made_of_is_one(proof: Proof) -> None:
    assert len(checked(proof).events) > 3


CHANGES: dict[str, dict[str, Any]] = {
    "lane": {"lane": 1},
    "position": {"position": 1000},
    "stream": {"stream": "0" * 32},
    "version": {"version": 99},
    "type": {"type": "exploded"},
    "recorded at": {"recorded_at_us": 1},
    "effective at": {"effective_at_us": 1},
    "account": {"account": "somebody"},
    "amount": {"amount_micros": 1},
    "actor": {"actor": "root"},
    "request id": {"request_id": "another"},
    "facts": {"facts": "{}"},
    "payload": {"payload": b"x"},
    "previous": {"previous": bytes(32)},
    "path": {"path": ()},
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_event_of_which_anything_is_changed_is_not_proven(proof: Proof, what: str) -> None:
    for at, event in enumerate(proof.events):
        changed = replace(event, **CHANGES[what])
        assert changed != event
        events = (*proof.events[:at], changed, *proof.events[at + 1 :])
        with pytest.raises(UnprovenError, match=f"at position {changed.position}"):
            checked(replace(proof, events=events))


def test_every_column_of_an_event_is_among_these() -> None:
    names = {name for change in CHANGES.values() for name in change}
    assert names == {*msgspec.structs.asdict(ProofEvent)}


ProofEvent = msgspec.convert(
    {"lane": 0, "position": 1, "stream": "0" * 32, "version": 1, "type": "t", "recorded_at_us": 0, "effective_at_us": 0,
     "account": "a", "amount_micros": None, "actor": "", "request_id": "", "facts": "{}", "payload": None,
     "previous": "A" * 43 + "=", "path": []},
    type=Proof.__annotations__["events"].__args__[0],
)  # fmt: skip


def test_a_thousand_changed_files_prove_nothing_or_the_same(proof: Proof) -> None:
    """One bit of the file, each seed another."""
    raw, wanted = file(proof), checked(proof)
    refused = 0
    for seed in range(1000):
        random = Random(seed)
        changed = bytearray(raw)
        changed[random.randrange(len(raw))] ^= 1 << random.randrange(8)
        try:
            found = check(bytes(changed), VERIFIER)
        except UnprovenError:
            refused += 1
        else:
            assert found == wanted, seed  # as a capital in a \\u escape, which JSON may have either way
    assert refused > 990


WRONG: dict[str, Callable[[Proof], Proof]] = {
    "nothing to prove": lambda proof: replace(proof, events=(), earlier=None, consistency=()),
    "the checkpoints in each other's place": lambda proof: replace(
        proof, checkpoint=proof.earlier or "", earlier=proof.checkpoint
    ),
    "no path of growth": lambda proof: replace(proof, consistency=()),
    "a path of growth that is too long": lambda proof: replace(proof, consistency=(*proof.consistency, bytes(32))),
    "a path of growth turned round": lambda proof: replace(proof, consistency=proof.consistency[::-1]),
    "an earlier checkpoint that nobody signed": lambda proof: replace(
        proof, earlier=(proof.earlier or "").replace("\n— ", "\n— x")
    ),
    "an earlier checkpoint of another log of that size": lambda proof: replace(
        proof, earlier=sign_checkpoint(Tree(len(proof.events), bytes(32)), KEY)
    ),
    "an empty log that has a root": lambda proof: replace(
        proof, earlier=sign_checkpoint(Tree(0, bytes(32)), KEY), consistency=()
    ),
    "an event twice": lambda proof: replace(proof, events=(proof.events[0], *proof.events)),
    "events in another order": lambda proof: replace(proof, events=proof.events[::-1]),
    "a checkpoint that is none": lambda proof: replace(proof, checkpoint=""),
    "a checkpoint of the empty log": lambda proof: replace(
        proof, checkpoint=sign_checkpoint(Tree(0, EMPTY_ROOT), KEY), earlier=None, consistency=()
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_proof_of_something_else_is_none(proof: Proof, what: str) -> None:
    with pytest.raises(UnprovenError):
        checked(WRONG[what](proof))


def test_another_key_proves_nothing(proof: Proof) -> None:
    with pytest.raises(UnprovenError, match="the checkpoint: the note is not signed by"):
        checked(proof, OTHER.verifier)


def test_a_checkpoint_that_was_kept_is_the_one_that_is_extended(proof: Proof) -> None:
    assert checked(proof, since=checked(proof).earlier).earlier is not None
    for kept in (checked(proof).checkpoint, Checkpoint(KEY.name, Tree(1, bytes(32)))):
        with pytest.raises(UnprovenError, match="it is not shown how the log grew since it had size"):
            checked(proof, since=kept)


def signed_over(row: Recorded) -> Proof:
    """A proof of a log with this row alone, as a log would sign it that lies."""
    place = Place(row.lane, row.position, row.stream, row.version, row.account)
    made, reading = link(GENESIS, place, row.entry), Reading()
    reading.add(made)
    event = replace(ProofEvent, stream=row.stream.hex(), version=row.version, account=row.account,
                    **{name: getattr(row.entry, name) for name in ("type", "recorded_at_us", "effective_at_us",
                       "amount_micros", "actor", "request_id", "payload")}, facts=row.entry.facts.decode(),
                    previous=GENESIS)  # fmt: skip
    return Proof(checkpoint=sign_checkpoint(Tree(1, reading.root), KEY), events=(event,))


LIES: list[dict[str, Any]] = [
    {"type": "refunded"},
    {"amount_micros": 1},
    {"effective_at_us": 1},
    {"facts": b'{"type":"exploded","at_us":1}'},
    {"facts": b"no JSON"},
]


@pytest.mark.parametrize("lie", LIES)
async def test_a_signed_row_whose_columns_and_facts_say_two_things_is_not_proven(lie: dict[str, Any]) -> None:
    ledger = await Ledger(MemoryEngine()).start()
    await ledger.handle(create(ident(1)))
    (row,) = await ledger.engine.after(0, 1)
    await ledger.writer.close()
    assert checked(signed_over(row)).events[0].position == 1
    with pytest.raises(UnprovenError, match="at position 1"):
        checked(signed_over(replace(row, entry=replace(row.entry, **lie))))


NOT_PROOFS = [b"", b"{}", b"[]", b"\xff", b'{"form":"task-ledger proof 2"}', b'{"checkpoint":""}', b"[" * 100_000]


@pytest.mark.parametrize("raw", NOT_PROOFS, ids=len)
def test_what_is_no_proof_is_refused(raw: bytes) -> None:
    with pytest.raises(UnprovenError):
        check(raw, VERIFIER)


OUT_OF_RANGE = [
    ("lane", -1), ("lane", 2**16), ("position", 0), ("position", 2**63), ("version", -1), ("version", 2**32),
    ("recorded_at_us", 2**63), ("amount_micros", -(2**63) - 1), ("previous", "AAAA"), ("path", ["AAAA"]),
    ("path", ["A" * 43 + "="] * 129), ("stream", "0" * 33), ("stream", "G" * 32), ("stream", "0" * 32 + "\n"),
    ("facts", None), ("facts", "\\ud800"), ("more", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_that_no_row_can_have_is_refused(proof: Proof, name: str, value: object) -> None:
    told = json.loads(file(proof))
    told["events"][0][name] = value
    raw = json.dumps(told).replace("\\\\ud800", "\\ud800").encode()
    with pytest.raises(UnprovenError):
        check(raw, VERIFIER)


@given(st.binary())
def test_no_bytes_make_the_check_raise_anything_else(raw: bytes) -> None:
    with pytest.raises(UnprovenError):
        check(raw, VERIFIER)


# What cannot be proven


async def test_a_checkpoint_of_another_log_proves_nothing_of_this_one(log: Engine) -> None:
    size, root = await tree_of(log)
    wrong = sign_checkpoint(Tree(size, bytes(32)), KEY)
    right = sign_checkpoint(Tree(size, root), KEY)
    longer = sign_checkpoint(Tree(size + 1, root), KEY)
    cases = [
        ({"note": wrong, "positions": [1]}, f"the log up to {size} is not the one"),
        (
            {"note": longer, "positions": [1]},
            f"the log ends at {size}, and the checkpoint is of one of size {size + 1}",
        ),
        ({"note": right, "earlier": wrong}, f"the log up to {size} is not the one"),
        ({"note": right, "earlier": longer}, f"the earlier checkpoint has size {size + 1}, the later one {size}"),
        ({"note": right, "earlier": await noted(log, OTHER)}, "the checkpoints are of two logs"),
        ({"note": right, "positions": [size + 1]}, f"position {size + 1} lies beyond the checkpoint"),
    ]
    for asked, detail in cases:
        with pytest.raises(NotThisLogError, match=detail):
            await prove(log, **asked)  # type: ignore[arg-type]


async def test_a_note_that_is_no_checkpoint_is_refused_before_the_log_is_read(log: Engine) -> None:
    with pytest.raises(NoteError):
        await prove(log, "x", positions=[1])
    with pytest.raises(NoteError):
        await prove(log, await noted(log), earlier="x")


async def test_a_log_that_does_not_extend_a_checkpoint_gets_no_other(log: Engine) -> None:
    size, root = await tree_of(log)
    assert await tree_of(log, extends=Checkpoint("o", Tree(size, root))) == (size, root)
    for tree in (Tree(size, bytes(32)), Tree(size + 1, root), Tree(0, bytes(32))):
        with pytest.raises(NotThisLogError):
            await tree_of(log, extends=Checkpoint("o", tree))


def changed(row: Recorded) -> Recorded:
    return replace(row, entry=replace(row.entry, actor="mallory"))


BROKEN: dict[str, Callable[[list[Recorded]], list[Recorded]]] = {
    "changed": lambda log: [*log[:4], changed(log[4]), *log[5:]],
    "missing": lambda log: [*log[:4], *log[5:]],
    "of an impossible width": lambda log: [*log[:4], replace(log[4], lane=2**20), *log[5:]],
    "cut off": lambda log: log[:4],
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_log_with_a_row_that_is_not_as_it_was_written_is_neither_signed_nor_shown(what: str) -> None:
    engine = MemoryEngine()
    await stored.fill(engine)
    note = await noted(engine)
    engine._log = BROKEN[what](engine._log)
    with pytest.raises(DamagedError, match="broken at position 5"):
        await tree_of(engine)
    with pytest.raises(DamagedError, match="broken at position 5"):
        await prove(engine, note, positions=[1])


async def test_more_than_a_page_is_read_and_how_far_it_is_is_told(log: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, told = await tree_of(log), list[tuple[int, int]]()
    monkeypatch.setattr("projections.audit.prove.PAGE", 7)
    assert follow.PAGE > 7
    assert await tree_of(log, progress=lambda done, total: told.append((done, total))) == whole
    assert told == [(min(done, whole.size), whole.size) for done in range(7, whole.size + 7, 7)]
