"""API keys: how they look, what is stored of them, and when they open."""

import asyncio
import re
import string
from pathlib import Path

import pytest

from api.contracts import parse_any
from ledger import keyring as keyring_module
from ledger.attempts import ATTEMPTS_MAX
from ledger.engine import Engine
from ledger.errors import StorageError, UnknownKey
from ledger.events import KeyIssued, KeyRevoked
from ledger.keyring import REMEMBERED_SECONDS, Keyring, NewKey
from ledger.keys import ID_BYTES, SECRET_BYTES, Role, Token, account_stream, digest, mint, opens, parse
from ledger.records import KeyRow
from ledger.sqlite import open_beside, open_to_serve
from tests.builders import (
    Watched,
    key_row,
    whole_log,
)
from tests.rules_dsl import ACCOUNT, CREATED_US, STRANGER

ENTROPY = bytes(range(ID_BYTES + SECRET_BYTES))
TOKEN, TEXT = mint(ENTROPY)
HOUR_US = 3_600_000_000
LATER_US = CREATED_US + HOUR_US


@pytest.fixture
def keys(watched: Watched) -> Keyring:
    return Keyring(watched)


async def issued(
    keys: Keyring, *, account: str = ACCOUNT, contract: str = "chunkr", role: Role = Role.CLIENT
) -> NewKey:
    return await keys.issue(account=account, contract=contract, role=role, by="operator-1", at_us=CREATED_US)


async def holder(keys: Keyring, text: str, *, at_us: int = LATER_US) -> KeyRow | None:
    """Who asks with the key *text*."""
    token = parse(text)
    return None if token is None else await keys.holder(token, at_us=at_us)


# The token


def test_a_token_is_a_prefix_a_public_id_and_a_secret_with_a_checksum() -> None:
    assert "tl_000002AVRYQCBD4DCB"[:0] + TEXT == TEXT
    assert re.fullmatch(r"tl_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}[0-9a-f]{8}", TEXT)
    assert f"tl_{TOKEN.key_id}_{TOKEN.secret}" + TEXT[-8:] == TEXT
    assert TEXT == "tl_0001IYT0XLWR_1u8QmlquE1rQpeqoulx6MZVGVGgufeog3UsDEHmrG2pea5133e8"


@pytest.mark.parametrize("entropy", [bytes(40), b"\xff" * 40, ENTROPY])
def test_what_is_minted_parses_to_what_it_was_minted_from(entropy: bytes) -> None:
    token, text = mint(entropy)
    assert parse(text) == token
    assert len(text) == 3 + 12 + 1 + 43 + 8


def test_every_bit_of_entropy_makes_another_token() -> None:
    texts = {mint((1 << bit).to_bytes(40, "big"))[1] for bit in range(320)}
    assert len(texts) == 320


def test_the_checksum_catches_every_change_of_a_single_character() -> None:
    alphabet = string.digits + string.ascii_letters
    changed = (
        TEXT[:place] + other + TEXT[place + 1 :]
        for place in range(len(TEXT))
        for other in alphabet
        if other != TEXT[place]
    )
    assert not [text for text in changed if parse(text) is not None]


def test_the_checksum_catches_two_neighbours_that_changed_places() -> None:
    swapped = {TEXT[:n] + TEXT[n + 1] + TEXT[n] + TEXT[n + 2 :] for n in range(len(TEXT) - 1)} - {TEXT}
    assert not [text for text in swapped if parse(text) is not None]


WRONG = [
    "",
    "tl_",
    "x",
    TOKEN.key_id,
    TEXT.upper(),
    TEXT.lower(),
    TEXT.swapcase(),
    TEXT + "0",
    "0" + TEXT,
    " " + TEXT,
    TEXT + "\n",
    TEXT.replace("tl_", "sk_"),
    TEXT.replace("_", "-"),
    TEXT + TEXT,
    TEXT[:-1] + "é",
    TEXT[:-1] + "\u0660",  # a digit to Unicode, not to us
    TEXT[:-1] + "\x00",
    "tl_" + "0" * 10_000,
    "Bearer " + TEXT,
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_exactly_a_token_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_truncated_token_is_none(length: int) -> None:
    assert parse(TEXT[:length]) is None


def test_a_token_does_not_show_its_secret_when_it_is_printed() -> None:
    assert TOKEN.secret not in repr(TOKEN)
    assert TOKEN.secret not in f"{TOKEN}"
    assert TOKEN.key_id in repr(TOKEN)


# What is stored


def test_the_digest_depends_on_secret_and_pepper_and_contains_neither() -> None:
    pepper = bytes(range(32))
    stored = digest(TOKEN.secret, pepper=pepper)
    assert re.fullmatch(r"[0-9a-f]{64}", stored)
    assert stored == digest(TOKEN.secret, pepper=pepper)
    assert stored != digest(TOKEN.secret, pepper=bytes(32))
    assert stored != digest(TOKEN.secret[:-1] + "!", pepper=pepper)
    for secret in (TOKEN.secret, TOKEN.secret.encode().hex(), pepper.hex()):
        assert secret not in stored


ROW = KeyRow(
    key_id=TOKEN.key_id,
    account=ACCOUNT,
    contract="chunkr",
    role="client",
    digest=digest(TOKEN.secret, pepper=b"p"),
    issued_at_us=0,
    revoked_at_us=100,
)
OPENS = [  # row, secret, pepper, time, whether it opens
    (ROW, TOKEN.secret, b"p", 99, True),
    (ROW, TOKEN.secret, b"p", 100, False),
    (ROW, TOKEN.secret, b"p", 101, False),
    (ROW, TOKEN.secret, b"q", 99, False),
    (ROW, "0" * 43, b"p", 99, False),
    (None, TOKEN.secret, b"p", 99, False),
    (key_row(TOKEN.key_id), TOKEN.secret, b"p", 99, False),
]


@pytest.mark.parametrize(("row", "secret", "pepper", "at_us", "expected"), OPENS)
def test_a_key_opens_with_its_secret_until_it_is_revoked(
    row: KeyRow | None, secret: str, pepper: bytes, at_us: int, *, expected: bool
) -> None:
    token = Token(key_id=TOKEN.key_id, secret=secret)
    assert opens(row, token, pepper=pepper, at_us=at_us) is expected


async def test_the_secret_is_nowhere_in_the_files_of_the_store(tmp_path: Path) -> None:
    engine = await open_to_serve(tmp_path / "ledger.db")
    keys = Keyring(engine)
    first = await issued(keys)
    second = await keys.rotate(first.key_id, overlap_us=HOUR_US, by="operator-1", at_us=CREATED_US)
    await keys.revoke(second.key_id, by="operator-1", at_us=LATER_US)
    stored = [row.digest.encode() for row in await keys.rows()]
    while_open = contents(tmp_path)
    await engine.close()
    assert {"ledger.db", "ledger.db-wal"} <= while_open.keys()
    for files in (while_open, contents(tmp_path)):
        everything = b"".join(files.values())
        assert all(one in everything for one in stored)  # so a secret would be found as well
        for key in (first, second):
            assert key.key.encode() not in everything
            assert key.key.split("_")[2][:43].encode() not in everything
            assert key.key.split("_")[2][:43].encode("utf-16-le") not in everything


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Issue, list, revoke, rotate


async def test_an_issued_key_opens_at_once_for_its_account_contract_and_role(keys: Keyring) -> None:
    new = await issued(keys, contract="beatra", role=Role.OPERATOR)
    row = await holder(keys, new.key)
    assert row is not None
    assert (row.key_id, row.account, row.contract, row.role) == (new.key_id, ACCOUNT, "beatra", "operator")
    assert row.revoked_at_us is None
    assert await keys.rows() == [row]


async def test_a_wrong_secret_of_a_known_key_does_not_open(keys: Keyring) -> None:
    one, other = await issued(keys), await issued(keys)
    mixed = Token(key_id=one.key_id, secret=other.key.split("_")[2][:43])
    assert await keys.holder(mixed, at_us=LATER_US) is None
    assert not await keys.was_revoked(mixed)


async def test_an_unknown_key_does_not_open(keys: Keyring) -> None:
    assert await holder(keys, TEXT) is None
    assert not await keys.was_revoked(TOKEN)


async def test_a_pepper_from_outside_takes_the_place_of_the_stored_one(engine: Engine) -> None:
    new = await issued(Keyring(engine, pepper=b"from the environment"))
    assert await holder(Keyring(engine, pepper=b"from the environment"), new.key) is not None
    assert await holder(Keyring(engine), new.key) is None


async def test_keys_are_listed_by_account_the_dead_ones_too(keys: Keyring) -> None:
    mine, other = await issued(keys), await issued(keys, account=STRANGER)
    await keys.revoke(mine.key_id, by="operator-1", at_us=LATER_US)
    assert [row.key_id for row in await keys.rows(ACCOUNT)] == [mine.key_id]
    assert [row.key_id for row in await keys.rows(STRANGER)] == [other.key_id]
    assert {row.key_id for row in await keys.rows()} == {mine.key_id, other.key_id}


async def test_a_revoked_key_is_dead_at_once_in_this_process(keys: Keyring) -> None:
    new = await issued(keys)
    assert await holder(keys, new.key) is not None
    row = await keys.revoke(new.key_id, by="operator-1", at_us=LATER_US)
    assert row.revoked_at_us == LATER_US
    assert await holder(keys, new.key) is None
    token = parse(new.key)
    assert token is not None
    assert await keys.was_revoked(token)


async def test_a_key_that_was_being_looked_up_when_it_was_revoked_is_dead_for_the_next_who_asks(
    keys: Keyring, watched: Watched
) -> None:
    new = await issued(keys)
    watched.read_gate.shut()
    early = asyncio.create_task(holder(keys, new.key))
    await watched.read_gate.someone_waits()
    revoking = asyncio.create_task(keys.revoke(new.key_id, by="operator-1", at_us=LATER_US))
    watched.read_gate.open()
    await asyncio.gather(early, revoking)
    assert await holder(keys, new.key) is None


@pytest.mark.parametrize("key_id", ["nothing", "", "x" * 12])
async def test_what_is_no_live_key_can_be_neither_revoked_nor_rotated(
    keys: Keyring, engine: Engine, key_id: str
) -> None:
    dead = await issued(keys)
    await keys.revoke(dead.key_id, by="operator-1", at_us=CREATED_US + 1)
    for unknown in (key_id, dead.key_id):
        with pytest.raises(UnknownKey) as refused:
            await keys.revoke(unknown, by="operator-1", at_us=LATER_US)
        assert refused.value.key_id == unknown
        with pytest.raises(UnknownKey):
            await keys.rotate(unknown, overlap_us=HOUR_US, by="operator-1", at_us=LATER_US)
    assert len(await whole_log(engine)) == 2


async def test_a_rotated_key_stays_alive_for_the_overlap_beside_the_new_one(keys: Keyring) -> None:
    old = await issued(keys, contract="beatra", role=Role.WORKER)
    new = await keys.rotate(old.key_id, overlap_us=HOUR_US, by="operator-1", at_us=CREATED_US)
    for at_us, alive in ((CREATED_US, True), (LATER_US - 1, True), (LATER_US, False), (LATER_US + HOUR_US, False)):
        assert (await holder(keys, old.key, at_us=at_us) is not None) is alive
        row = await holder(keys, new.key, at_us=at_us)
        assert row is not None
        assert (row.account, row.contract, row.role) == (ACCOUNT, "beatra", "worker")


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(keys: Keyring) -> None:
    old = await issued(keys)
    new = await keys.rotate(old.key_id, overlap_us=0, by="operator-1", at_us=LATER_US)
    assert await holder(keys, old.key) is None
    assert await holder(keys, new.key) is not None


async def test_a_rotated_key_can_still_be_revoked_within_its_overlap(keys: Keyring) -> None:
    old = await issued(keys)
    await keys.rotate(old.key_id, overlap_us=2 * HOUR_US, by="operator-1", at_us=CREATED_US)
    assert await holder(keys, old.key) is not None
    await keys.revoke(old.key_id, by="operator-1", at_us=LATER_US)
    assert await holder(keys, old.key) is None


async def test_a_second_rotation_does_not_lengthen_the_life_of_the_old_key(keys: Keyring) -> None:
    old = await issued(keys)
    await keys.rotate(old.key_id, overlap_us=HOUR_US, by="operator-1", at_us=CREATED_US)
    await keys.rotate(old.key_id, overlap_us=9 * HOUR_US, by="operator-1", at_us=CREATED_US + 1)
    assert await holder(keys, old.key, at_us=LATER_US - 1) is not None
    assert await holder(keys, old.key, at_us=LATER_US) is None


# As events


async def test_what_is_done_to_keys_is_in_the_log_and_by_whom(keys: Keyring, engine: Engine) -> None:
    old = await issued(keys, contract="beatra", role=Role.WORKER)
    new = await keys.rotate(old.key_id, overlap_us=HOUR_US, by="operator-2", at_us=CREATED_US + 5)
    await keys.revoke(new.key_id, by="operator-3", at_us=CREATED_US + 9)
    rows = await whole_log(engine)
    assert [row.entry.actor for row in rows] == ["operator-1", "operator-2", "operator-2", "operator-3"]
    assert {(row.stream, row.account) for row in rows} == {(account_stream(ACCOUNT), ACCOUNT)}
    by_id = {row.key_id: row for row in await keys.rows()}
    first = KeyIssued(
        at_us=CREATED_US, key_id=old.key_id, role="worker", contract="beatra", digest=by_id[old.key_id].digest
    )
    second = KeyIssued(
        at_us=CREATED_US + 5,
        key_id=new.key_id,
        role="worker",
        contract="beatra",
        digest=by_id[new.key_id].digest,
        replaces=old.key_id,
    )
    assert [row.event for row in rows] == [
        first,
        second,
        KeyRevoked(at_us=CREATED_US + 5, key_id=old.key_id, revoked_at_us=CREATED_US + 5 + HOUR_US),
        KeyRevoked(at_us=CREATED_US + 9, key_id=new.key_id, revoked_at_us=CREATED_US + 9),
    ]


async def test_each_account_has_a_stream_of_its_own_that_is_no_tasks(keys: Keyring, engine: Engine) -> None:
    accounts = [ACCOUNT, STRANGER, "", "æ", "x" * 1000]
    for account in accounts:
        await issued(keys, account=account)
    streams = [row.stream for row in await whole_log(engine)]
    assert streams == [account_stream(account) for account in accounts]
    assert len(set(streams)) == len(accounts)
    assert all(stream[6] >> 4 == 8 for stream in streams)  # a task's is 7: the version of its UUID
    assert parse_any(streams[0].hex()) is None


async def test_recorded_time_does_not_go_back_with_the_clock(keys: Keyring, engine: Engine) -> None:
    new = await issued(keys)
    await keys.revoke(new.key_id, by="operator-1", at_us=CREATED_US - HOUR_US)
    assert [row.entry.recorded_at_us for row in await whole_log(engine)] == [CREATED_US, CREATED_US]


# At once


async def test_many_keys_of_one_account_can_be_issued_at_once(keys: Keyring, engine: Engine) -> None:
    many = await asyncio.gather(*(issued(keys) for _ in range(30)))
    assert {row.key_id for row in await keys.rows(ACCOUNT)} == {new.key_id for new in many}
    assert len(await whole_log(engine)) == 30


async def test_of_many_who_revoke_one_key_at_once_one_does(keys: Keyring, engine: Engine) -> None:
    new = await issued(keys)
    revoking = (keys.revoke(new.key_id, by="operator-1", at_us=LATER_US) for _ in range(10))
    kinds = [type(row) for row in await asyncio.gather(*revoking, return_exceptions=True)]
    assert sorted(kinds, key=str) == sorted([KeyRow, *[UnknownKey] * 9], key=str)
    assert len(await whole_log(engine)) == 2


async def test_a_rotation_that_was_decided_before_a_revocation_does_not_revive_the_key(
    watched: Watched, engine: Engine
) -> None:
    ours, theirs = Keyring(watched), Keyring(engine)  # two processes
    leaked = await issued(ours)
    watched.read_gate.shut()
    rotating = asyncio.create_task(ours.rotate(leaked.key_id, overlap_us=HOUR_US, by="operator-1", at_us=LATER_US))
    await watched.read_gate.someone_waits()
    await theirs.revoke(leaked.key_id, by="operator-2", at_us=LATER_US)
    watched.read_gate.open()
    with pytest.raises(UnknownKey):
        await rotating
    assert await holder(theirs, leaked.key) is None
    assert len(await whole_log(engine)) == 2


async def test_what_another_process_changes_meanwhile_is_decided_on_again(watched: Watched, engine: Engine) -> None:
    watched.stale_commits = 2
    new = await issued(Keyring(watched))
    assert [row.key_id for row in await engine.keys(ACCOUNT)] == [new.key_id]
    watched.commits.clear()
    watched.stale_commits = 10**6
    with pytest.raises(StorageError, match="kept changing"):
        await issued(Keyring(watched))
    assert len(watched.commits) == ATTEMPTS_MAX


# What another process does


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keyring_module, "time", clock)
    return clock


async def test_a_key_revoked_by_another_process_is_dead_as_soon_as_it_is_no_longer_remembered(
    tmp_path: Path, clock: Clock
) -> None:
    serving, beside = await open_to_serve(tmp_path / "ledger.db"), await open_beside(tmp_path / "ledger.db")
    here, there = Keyring(serving), Keyring(beside)
    new = await issued(there)
    assert await holder(here, new.key) is not None
    await there.revoke(new.key_id, by="cli", at_us=CREATED_US)
    clock.seconds += REMEMBERED_SECONDS / 2
    assert await holder(here, new.key) is not None
    clock.seconds += REMEMBERED_SECONDS / 2
    assert await holder(here, new.key) is None
    await serving.close()
    await beside.close()


async def test_a_key_is_looked_up_once_while_it_is_remembered(keys: Keyring, watched: Watched, clock: Clock) -> None:
    new = await issued(keys)
    for _ in range(5):
        assert await holder(keys, new.key) is not None
        assert await holder(keys, TEXT) is None
    assert sorted(watched.key_reads) == sorted([new.key_id, TOKEN.key_id])
    clock.seconds += REMEMBERED_SECONDS
    assert await holder(keys, new.key) is not None
    assert len(watched.key_reads) == 3


async def test_however_many_keys_are_tried_few_are_remembered(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "REMEMBERED_MAX", 10)
    for number in range(50):
        token, _ = mint(number.to_bytes(ID_BYTES, "big") + bytes(SECRET_BYTES))
        assert await keys.holder(token, at_us=LATER_US) is None
    assert len(keys._remembered) == 10
