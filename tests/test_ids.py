"""A task id is 128 bits with its time and lane inside, and each spelling is read exactly as it is printed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.contracts import CONTRACTS, parse_any, spellings
from ledger.ids import ENTROPY_BYTES, Spelling, TaskId, earliest_id, lane_of, task_id, ulid

LDTASK, TASK, UUID, TSK = (CONTRACTS[name].spelling for name in ("lemondata", "bytespike", "chunkr", "beatra"))
SPEC = TaskId(bytes.fromhex("01563e3ab5d3d6764c61efb99302bd5b"))
SPELLED = {  # the example of the ULID specification, four times the same 128 bits
    LDTASK: "ldtask_01563e3ab5d3d6764c61efb99302bd5b",
    TASK: "task_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    UUID: "01563e3a-b5d3-d676-4c61-efb99302bd5b",
    TSK: "tsk_01ARZ3NDEKTSV4RRFFQ69G5FAV",
}
AT_US = 1_469_918_176_385_999  # the time of the specification's other example, 01ARYZ6S41

ids = st.binary(min_size=16, max_size=16).map(TaskId)


# The bits


def test_an_id_holds_its_time_version_variant_and_lane_where_a_uuid7_has_them() -> None:
    assert task_id(at_us=AT_US, lane=0x2A, entropy=b"\xff" * ENTROPY_BYTES).hex() == (
        "01563df36481" + "7fff" + "bfffffffffff" + "ff2a"
    )
    assert task_id(at_us=AT_US, lane=0, entropy=bytes(ENTROPY_BYTES)).hex() == (
        "01563df36481" + "7000" + "8000000000000000"
    )
    assert task_id(at_us=AT_US, lane=1, entropy=bytes(range(0x41, 0x4B))).hex() == (
        "01563df36481" + "7142" + "8344454647484901"
    )


def test_an_id_keeps_the_milliseconds_of_its_birth_and_drops_the_rest() -> None:
    born = task_id(at_us=AT_US, lane=0, entropy=bytes(ENTROPY_BYTES))
    assert ulid(born)[:10] == "01ARYZ6S41"
    assert int.from_bytes(born[:6], "big") == 1_469_918_176_385


@pytest.mark.parametrize("at_us", [0, (2**48) * 1000 - 1])
def test_the_first_and_the_last_millisecond_fit(at_us: int) -> None:
    born = task_id(at_us=at_us, lane=255, entropy=bytes(ENTROPY_BYTES))
    assert int.from_bytes(born[:6], "big") == at_us // 1000


@pytest.mark.parametrize(
    ("at_us", "lane", "entropy"),
    [
        (-1, 0, bytes(10)),
        (2**48 * 1000, 0, bytes(10)),
        (0, -1, bytes(10)),
        (0, 256, bytes(10)),
        (0, 0, bytes(9)),
        (0, 0, bytes(11)),
    ],
)
def test_what_does_not_fit_the_layout_is_a_bug(at_us: int, lane: int, entropy: bytes) -> None:
    with pytest.raises(AssertionError):
        task_id(at_us=at_us, lane=lane, entropy=entropy)


@given(st.integers(0, 255), st.binary(min_size=10, max_size=10))
@settings(deadline=None)
def test_the_lane_is_read_back_whatever_the_entropy(lane: int, entropy: bytes) -> None:
    assert lane_of(task_id(at_us=AT_US, lane=lane, entropy=entropy)) == lane


@given(st.integers(0, 2**47), st.integers(1, 2**40), st.binary(min_size=10, max_size=10))
@settings(deadline=None)
def test_later_ids_sort_later_in_every_spelling(at_ms: int, gap_ms: int, entropy: bytes) -> None:
    early = task_id(at_us=at_ms * 1000, lane=255, entropy=b"\xff" * ENTROPY_BYTES)
    late = task_id(at_us=(at_ms + gap_ms) * 1000, lane=0, entropy=entropy)
    assert early < late
    assert all(spelling.spell(early) < spelling.spell(late) for spelling in spellings())


@given(st.integers(1, 2**47), st.integers(0, 999), st.binary(min_size=10, max_size=10))
@settings(deadline=None)
def test_the_earliest_id_parts_a_millisecond_from_the_one_before(at_ms: int, past_us: int, entropy: bytes) -> None:
    bound = earliest_id(at_ms * 1000 + past_us)
    assert task_id(at_us=at_ms * 1000 - 1, lane=255, entropy=b"\xff" * ENTROPY_BYTES) < bound
    assert bound < task_id(at_us=at_ms * 1000, lane=0, entropy=entropy)


# The spellings


@pytest.mark.parametrize("spelling", spellings(), ids=str)
def test_each_contract_prints_and_reads_the_specifications_example(spelling: Spelling) -> None:
    assert spelling.spell(SPEC) == SPELLED[spelling]
    assert spelling.parse(SPELLED[spelling]) == SPEC
    assert parse_any(SPELLED[spelling]) == SPEC


def test_the_ends_of_the_range_are_spelled_as_the_specification_says() -> None:
    assert ulid(bytes(16)) == "0" * 26
    assert ulid(b"\xff" * 16) == "7" + "Z" * 25
    assert ulid(bytes([0] * 15 + [31])) == "0" * 25 + "Z"
    assert TASK.parse("task_7" + "Z" * 25) == b"\xff" * 16


def test_every_letter_of_crockfords_base_32_stands_for_its_five_bits() -> None:
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    read = [TSK.parse("tsk_" + "0" * 25 + char) for char in alphabet]
    assert read == [value.to_bytes(16, "big") for value in range(32)]


@given(ids)
@settings(deadline=None)
def test_every_id_survives_every_spelling(task: TaskId) -> None:
    for spelling in spellings():
        assert spelling.parse(spelling.spell(task)) == task
        assert parse_any(spelling.spell(task)) == task


@given(ids)
@settings(deadline=None)
def test_no_spelling_is_taken_for_another(task: TaskId) -> None:
    for spelling in spellings():
        readers = [other for other in spellings() if other.parse(spelling.spell(task)) is not None]
        assert readers == [spelling]


def test_a_uuid_is_read_in_either_case() -> None:
    assert UUID.parse(SPELLED[UUID].upper()) == SPEC
    assert UUID.parse("01563E3a-b5d3-D676-4c61-efb99302bd5b") == SPEC


WRONG = {
    LDTASK: {
        "upper-case digits": "ldtask_01563E3AB5D3D6764C61EFB99302BD5B",
        "upper-case prefix": "LDTASK_01563e3ab5d3d6764c61efb99302bd5b",
        "another prefix": "task_01563e3ab5d3d6764c61efb99302bd5b",
        "no prefix": "01563e3ab5d3d6764c61efb99302bd5b",
        "prefix alone": "ldtask_",
        "prefix twice": "ldtask_ldtask_01563e3ab5d3d6764c61efb99302bd5b",
        "a digit short": "ldtask_01563e3ab5d3d6764c61efb99302bd5",
        "a digit long": "ldtask_01563e3ab5d3d6764c61efb99302bd5b0",
        "no hex": "ldtask_g1563e3ab5d3d6764c61efb99302bd5b",
        "hyphens": "ldtask_01563e3a-b5d3-d676-4c61-efb99302bd5b",
    },
    TASK: {
        "lower-case": "task_01arz3ndektsv4rrffq69g5fav",
        "upper-case prefix": "TASK_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "another prefix": "tsk_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "no prefix": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "prefix alone": "task_",
        "more than 128 bits": "task_81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "far more than 128 bits": "task_Z1ARZ3NDEKTSV4RRFFQ69G5FAV",
        "the letter I": "task_01ARZ3NDEKTSV4RRFFQ69G5FAI",
        "the letter L": "task_01ARZ3NDEKTSV4RRFFQ69G5FAL",
        "the letter O": "task_O1ARZ3NDEKTSV4RRFFQ69G5FAV",
        "the letter U": "task_01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "a character short": "task_01ARZ3NDEKTSV4RRFFQ69G5FA",
        "a character long": "task_01ARZ3NDEKTSV4RRFFQ69G5FAVV",
        "hyphen": "task_01ARZ3NDEK-SV4RRFFQ69G5FAV",
        "before zero": "task_/1ARZ3NDEKTSV4RRFFQ69G5FAV",
    },
    UUID: {
        "no hyphens": "01563e3ab5d3d6764c61efb99302bd5b",
        "hyphens elsewhere": "01563e3ab-5d3-d676-4c61-efb99302bd5b",
        "braces": "{01563e3a-b5d3-d676-4c61-efb99302bd5b}",
        "urn": "urn:uuid:01563e3a-b5d3-d676-4c61-efb99302bd5b",
        "a digit short": "01563e3a-b5d3-d676-4c61-efb99302bd5",
        "a digit long": "01563e3a-b5d3-d676-4c61-efb99302bd5b0",
        "no hex": "g1563e3a-b5d3-d676-4c61-efb99302bd5b",
        "another prefix": "uuid01563e3a-b5d3-d676-4c61-efb99302bd5b",
        "a dash that is no hyphen": "01563e3a\u2010b5d3-d676-4c61-efb99302bd5b",
    },
    TSK: {
        "lower-case": "tsk_01arz3ndektsv4rrffq69g5fav",
        "another prefix": "task_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "more than 128 bits": "tsk_81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "the letter O": "tsk_01ARZ3NDEKTSV4RRFFQ69G5FAO",
    },
}


@pytest.mark.parametrize(
    ("spelling", "text"),
    [pytest.param(s, text, id=f"{s.prefix}-{why}") for s, rows in WRONG.items() for why, text in rows.items()],
)
def test_a_wrong_spelling_is_no_id(spelling: Spelling, text: str) -> None:
    assert spelling.parse(text) is None


@pytest.mark.parametrize("text", SPELLED.values())
@pytest.mark.parametrize(
    "spoil",
    [
        "{}\n",
        "{} ",
        " {}",
        "{}\0",
        "\ufeff{}",
        "{}\u0301",
    ],
)
def test_nothing_may_stand_before_or_after_an_id(text: str, spoil: str) -> None:
    assert parse_any(spoil.format(text)) is None


@pytest.mark.parametrize("text", SPELLED.values())
@pytest.mark.parametrize("zero", ["\u0660", "\uff10", "\U0001d7ce"])
def test_digits_of_other_scripts_are_no_digits(text: str, zero: str) -> None:
    head, tail = text.split("0", 1)
    assert parse_any(head + zero + tail) is None


@pytest.mark.parametrize("text", ["", "_", "none", "0", "null", "ldtask", "task_.."])
def test_what_has_none_of_the_four_spellings_is_no_id(text: str) -> None:
    assert parse_any(text) is None


@given(ids, st.sampled_from(spellings()), st.integers(0, 40), st.characters())
@settings(deadline=None)
def test_one_changed_character_makes_another_id_or_none(
    task: TaskId, spelling: Spelling, place: int, char: str
) -> None:
    text = spelling.spell(task)
    changed = text[:place] + char + text[place + 1 :]
    read = spelling.parse(changed)
    assert read is None or spelling.spell(read) in {changed, changed.lower()}
    assert (read == task) <= (changed.lower() == text.lower())
