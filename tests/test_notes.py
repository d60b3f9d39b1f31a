"""Signed notes, checkpoints and their keys: to the byte as published, and strict about everything that is not."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.merkle import Tree
from ledger.notes import (
    NOTE_MAX_CHARS,
    SIGNATURES_MAX,
    Checkpoint,
    NoteError,
    SignerKey,
    VerifierKey,
    checkpoint_in,
    is_name,
    opened,
    opened_checkpoint,
    sign,
    sign_checkpoint,
    signer_key,
    verifier_key,
)

# As Go's `sumdb/note`, where the form comes from, has them in its documentation

PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"


def test_the_published_key_signs_the_published_note() -> None:
    assert sign(TEXT, signer_key(PRIVATE)) == NOTE


def test_the_published_note_opens_with_the_published_key() -> None:
    assert opened(NOTE, verifier_key(PUBLIC)) == TEXT


def test_keys_are_spelled_as_they_are_read() -> None:
    assert str(verifier_key(PUBLIC)) == PUBLIC
    assert signer_key(PRIVATE).secret_text == PRIVATE
    assert signer_key(PRIVATE).verifier == verifier_key(PUBLIC)


def test_a_key_id_is_the_digest_of_name_kind_and_key() -> None:
    key = verifier_key(PUBLIC)
    assert key.id == sha256(b"PeterNeumann\n\x01" + key.public).digest()[:4]


def test_a_secret_is_printed_only_by_its_name() -> None:
    key = signer_key(PRIVATE)
    assert PRIVATE.rpartition("+")[2] not in f"{key} {key!r} {[key]}"
    assert str(key.seed) not in f"{key} {key!r} {[key]}"


# Ours

KEY = SignerKey("example.com/ledger", bytes(range(32)))
OTHER = SignerKey("example.com/other", bytes(range(1, 33)))
TREE = Tree(20_852_163, sha256(b"root").digest())
CHECKPOINT = sign_checkpoint(TREE, KEY)


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    root = base64.b64encode(TREE.root).decode()
    head, signature = CHECKPOINT.split("\n\n")
    assert head == f"example.com/ledger\n20852163\n{root}"
    assert signature.startswith("— example.com/ledger ")
    assert signature.endswith("\n")
    raw = base64.b64decode(signature.split(" ")[2])
    public = Ed25519PrivateKey.from_private_bytes(KEY.seed).public_key()
    public.verify(raw[4:], f"{head}\n".encode())


def test_a_checkpoint_opens_with_its_key() -> None:
    assert opened_checkpoint(CHECKPOINT, KEY.verifier) == Checkpoint(KEY.name, TREE) == checkpoint_in(CHECKPOINT)


def test_the_checkpoint_that_the_specification_shows_can_be_read() -> None:
    note = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/"
        "behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    read = checkpoint_in(note)
    assert (read.origin, read.tree.size) == ("example.com/behind-the-sofa", 20_852_163)


def test_lines_beyond_the_third_are_passed_over() -> None:
    text = f"{Checkpoint(KEY.name, TREE).text}an extension\n"
    assert opened_checkpoint(sign(text, KEY), KEY.verifier).tree == TREE


def test_signatures_of_others_are_passed_over() -> None:
    theirs = sign_checkpoint(TREE, OTHER).rpartition("\n\n")[2]
    longer = "— example.com/witness " + base64.b64encode(bytes(5000)).decode() + "\n"
    for note in (f"{CHECKPOINT}{theirs}{longer}", CHECKPOINT.replace("\n\n", f"\n\n{longer}{theirs}")):
        assert opened_checkpoint(note, KEY.verifier).tree == TREE


SAME_NAME = SignerKey(KEY.name, bytes(32))


def test_a_key_of_the_same_name_does_not_open() -> None:
    with pytest.raises(NoteError, match="is not signed by"):
        opened(CHECKPOINT, SAME_NAME.verifier)
    both = CHECKPOINT + sign_checkpoint(TREE, SAME_NAME).rpartition("\n\n")[2]
    assert opened_checkpoint(both, KEY.verifier).tree == TREE
    assert opened_checkpoint(both, SAME_NAME.verifier).tree == TREE


def test_a_checkpoint_of_another_log_is_none_of_this_key() -> None:
    with pytest.raises(NoteError, match=r"is of example\.com/other, the key is of example\.com/ledger"):
        opened_checkpoint(sign(Checkpoint("example.com/other", TREE).text, KEY), KEY.verifier)


def test_one_wrong_signature_of_the_key_among_right_ones_is_one_too_many() -> None:
    line = CHECKPOINT.rpartition("\n\n")[2]
    wrong = "— example.com/ledger " + base64.b64encode(KEY.verifier.id + bytes(64)).decode() + "\n"
    for lines in (line + wrong, wrong + line):
        with pytest.raises(NoteError, match="is not one of this text"):
            opened(f"{CHECKPOINT.rpartition(line)[0]}{lines}", KEY.verifier)


def test_whichever_byte_of_a_checkpoint_is_changed_it_does_not_open() -> None:
    raw = CHECKPOINT.encode()
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytes([*raw[:at], raw[at] ^ 1 << bit, *raw[at + 1 :]]).decode(errors="replace")
            with pytest.raises(NoteError):
                opened_checkpoint(changed, KEY.verifier)


LINE = CHECKPOINT.rpartition("\n\n")[2]
HEAD = CHECKPOINT.partition("\n\n")[0]
NOT_NOTES = {
    "nothing": "",
    "no signature": f"{HEAD}\n\n",
    "no empty line": f"{HEAD}\n{LINE}",
    "no last newline": CHECKPOINT.removesuffix("\n"),
    "an empty line more": f"{CHECKPOINT}\n",
    "a hyphen": CHECKPOINT.replace("—", "-"),
    "two spaces": CHECKPOINT.replace("— ", "—  "),
    "a name with a plus": CHECKPOINT.replace("— example", "— a+b"),
    "a short signature": f"{HEAD}\n\n— a AAAAAA==\n",
    "base64 with a bit too many": f"{HEAD}\n\n— a AAAAAAB=\n",
    "no base64": f"{HEAD}\n\n— a !!!!\n",
    "a tab": CHECKPOINT.replace("20852163", "2085\t163"),
    "a carriage return": CHECKPOINT.replace("\n", "\r\n"),
    "half a character": CHECKPOINT.replace("example", "\ud800"),
    "too many signatures": HEAD + "\n\n" + LINE * (SIGNATURES_MAX + 1),
    "too long": "x" * NOTE_MAX_CHARS + CHECKPOINT,
}


@pytest.mark.parametrize("what", NOT_NOTES)
def test_what_is_no_note_is_refused(what: str) -> None:
    with pytest.raises(NoteError, match="no signed note"):
        opened(NOT_NOTES[what], KEY.verifier)
    with pytest.raises(NoteError, match="no signed note"):
        checkpoint_in(NOT_NOTES[what])


ROOT = base64.b64encode(TREE.root).decode()
NOT_CHECKPOINTS = [
    "o\n1\n",
    "\n1\n",
    f"o\n01\n{ROOT}\n",
    f"o\n-1\n{ROOT}\n",
    f"o\n+1\n{ROOT}\n",
    f"o\n1.0\n{ROOT}\n",
    f"o\n\u0661\n{ROOT}\n",
    f"o\n\n{ROOT}\n",
    f"o\n{2**63}\n{ROOT}\n",
    f"o\n1\n{ROOT[:-4]}\n",
    f"o\n1\n{ROOT} \n",
    f"o\n1\n{ROOT}\n\nx\n",
    f"\n1\n{ROOT}\n",
]


@pytest.mark.parametrize("text", NOT_CHECKPOINTS)
def test_a_note_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError, match="no checkpoint"):
        opened_checkpoint(sign(text, KEY), KEY.verifier)


WRONG_KEYS = [
    "",
    "+",
    "a",
    "a+b",
    PUBLIC.replace("c74f20a3", "c74f20a4"),
    PUBLIC.replace("c74f20a3", "C74F20A3"),
    PUBLIC.replace("Peter", "Paul"),
    PUBLIC.replace("+ARpc", "+AhpC"),
    PUBLIC[:-4],
    f"{PUBLIC}=",
    f"{PUBLIC}\n",
    f" {PUBLIC}",
    PUBLIC.replace("PeterNeumann", ""),
]


@pytest.mark.parametrize("text", WRONG_KEYS)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        verifier_key(text)
    with pytest.raises(NoteError) as told:
        signer_key(f"PRIVATE+KEY+{text}")
    assert "ARpc" not in str(told.value)


def test_a_public_key_does_not_sign_and_a_private_one_is_not_taken_for_public() -> None:
    with pytest.raises(NoteError, match="no private key"):
        signer_key(PUBLIC)
    with pytest.raises(NoteError):
        verifier_key(PRIVATE)


def test_a_key_that_is_no_point_opens_nothing() -> None:
    bad = VerifierKey(KEY.name, b"\xff" * 32)
    line = "— example.com/ledger " + base64.b64encode(bad.id + bytes(64)).decode() + "\n"
    with pytest.raises(NoteError, match="is not one of this text"):
        opened(f"{HEAD}\n\n{line}", bad)


NAMES = [("a", True), ("example.com/x", True), ("é", True), ("", False), ("a b", False), ("a+b", False), ("a\n", False)]


@pytest.mark.parametrize(("name", "may"), [*NAMES, ("a\u2003b", False), ("\ud800", False)])
def test_a_name_has_neither_spaces_nor_a_plus(name: str, may: bool) -> None:  # noqa: FBT001 - a column of the table
    assert is_name(name) is may


@given(st.text())
@example(CHECKPOINT)
@example("a\n1\n\n\n— a AAAAAAAA\n")
def test_no_text_makes_the_parsers_raise_anything_else(text: str) -> None:
    for parse in (verifier_key, signer_key, checkpoint_in, lambda note: opened_checkpoint(note, KEY.verifier)):
        try:
            parse(text)
        except NoteError:
            continue
        assert text == CHECKPOINT


@given(st.lists(st.sampled_from([*HEAD, "\n", "\n\n", "— ", LINE, HEAD, "a AAAAAAAA\n", "=", "0"]), max_size=12))
def test_no_text_of_the_same_parts_opens_but_the_one_that_was_signed(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        opened_checkpoint(text, KEY.verifier)
    except NoteError:
        return
    assert text.startswith(f"{HEAD}\n\n")
    assert LINE in text
