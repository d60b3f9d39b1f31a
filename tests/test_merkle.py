"""The Merkle tree: its roots and paths are the RFC's, other hands' libraries agree, and no other path is taken."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from random import Random

import pytest
import scitt_cose
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import ConsistencyProof, InmemoryTree, verify_consistency, verify_inclusion
from pymerkle.proof import InclusionProof

from ledger.merkle import (
    EMPTY_ROOT,
    Reading,
    Span,
    Tree,
    consistency_spans,
    inclusion_spans,
    is_consistent,
    leaf_hash,
    node_hash,
    root_of_inclusion,
)

SIZE_MAX = 70


def leaves(size: int) -> list[bytes]:
    return [sha256(number.to_bytes(4, "big")).digest() for number in range(size)]


def read(told: list[bytes], *wanted: Span) -> Reading:
    reading = Reading(wanted)
    for leaf in told:
        reading.add(leaf)
    return reading


def tree(told: list[bytes]) -> Tree:
    return Tree(len(told), read(told).root)


def path_of(told: list[bytes], spans: list[Span]) -> list[bytes]:
    reading = read(told, *spans)
    return [reading.hash_of(span) for span in spans]


# As published: the tree that Certificate Transparency's own tests build

PUBLISHED = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
GROWTHS = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


@pytest.mark.parametrize(("size", "root"), [*enumerate(ROOTS)])
def test_a_root_is_the_published_one(size: int, root: str) -> None:
    assert tree(PUBLISHED[:size]) == (size, bytes.fromhex(root))


@pytest.mark.parametrize(("number", "size", "path"), PATHS)
def test_an_inclusion_path_is_the_published_one(number: int, size: int, path: list[str]) -> None:
    assert [one.hex() for one in path_of(PUBLISHED[:size], inclusion_spans(number, size))] == path


@pytest.mark.parametrize(("old", "new", "path"), GROWTHS)
def test_a_consistency_path_is_the_published_one(old: int, new: int, path: list[str]) -> None:
    assert [one.hex() for one in path_of(PUBLISHED[:new], consistency_spans(old, new))] == path


def test_leaves_and_nodes_are_hashed_apart() -> None:
    left, right = leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)
    assert sha256(b"").digest() == EMPTY_ROOT


# As the RFC defines them, by recursion


def mth(told: list[bytes]) -> bytes:
    if len(told) < 2:
        return leaf_hash(told[0]) if told else EMPTY_ROOT
    k = split(len(told))
    return node_hash(mth(told[:k]), mth(told[k:]))


def split(size: int) -> int:
    """The largest power of two below *size*."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def rfc_path(number: int, told: list[bytes]) -> list[bytes]:
    if len(told) == 1:
        return []
    k = split(len(told))
    if number < k:
        return [*rfc_path(number, told[:k]), mth(told[k:])]
    return [*rfc_path(number - k, told[k:]), mth(told[:k])]


def rfc_subproof(old: int, told: list[bytes], *, whole: bool = True) -> list[bytes]:
    if old == len(told):
        return [] if whole else [mth(told)]
    k = split(len(told))
    if old <= k:
        return [*rfc_subproof(old, told[:k], whole=whole), mth(told[k:])]
    return [*rfc_subproof(old - k, told[k:], whole=False), mth(told[:k])]


@pytest.mark.parametrize("size", range(SIZE_MAX))
def test_every_root_and_path_is_as_the_rfc_defines_it_and_proves_what_it_should(size: int) -> None:
    told = leaves(size)
    whole = tree(told)
    assert whole.root == mth(told)
    for number, leaf in enumerate(told):
        path = path_of(told, inclusion_spans(number, size))
        assert path == rfc_path(number, told)
        assert root_of_inclusion(leaf, number=number, size=size, path=path) == whole.root
    for old in range(1, size + 1):
        path = path_of(told, consistency_spans(old, size))
        assert path == rfc_subproof(old, told)
        assert is_consistent(tree(told[:old]), whole, path)


def test_the_empty_tree_is_the_beginning_of_every_other() -> None:
    for size in range(4):
        assert is_consistent(Tree(0, EMPTY_ROOT), tree(leaves(size)), [])
        assert not is_consistent(Tree(0, bytes(32)), tree(leaves(size)), [])


def test_many_spans_are_had_of_one_reading() -> None:
    told, size = leaves(50), 50
    spans = [span for number in range(size) for span in inclusion_spans(number, size)]
    spans += [span for old in range(1, size) for span in consistency_spans(old, size)]
    spans += [Span(0, old) for old in range(size + 1)]
    reading = read(told, *spans)
    for start, end in spans:
        assert reading.hash_of(Span(start, end)) == mth(told[start:end])


# As other hands' libraries have them


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    made = InmemoryTree(algorithm="sha256")
    for leaf in leaves(SIZE_MAX):
        made.append_entry(leaf)
    return made


@pytest.mark.parametrize("size", range(1, SIZE_MAX))
def test_pymerkle_has_the_same_root_and_takes_our_inclusion_proofs(theirs: InmemoryTree, size: int) -> None:
    told = leaves(size)
    root = tree(told).root
    assert theirs.get_root(size) == root
    for number, leaf in enumerate(told):
        path = path_of(told, inclusion_spans(number, size))
        proof = theirs.prove_inclusion(number + 1, size)
        ours = InclusionProof("sha256", True, size, number + 1, proof.rule, [leaf_hash(leaf), *path])  # noqa: FBT003 - theirs
        verify_inclusion(leaf_hash(leaf), root, ours, index=number + 1, size=size)


@pytest.mark.parametrize("new", range(1, SIZE_MAX))
def test_pymerkle_finds_our_roots_consistent_and_ours_alone(theirs: InmemoryTree, new: int) -> None:
    told = leaves(new)
    for old in range(1, new + 1):
        proof: ConsistencyProof = theirs.prove_consistency(old, new)
        sizes = {"prior_size": old, "later_size": new}
        verify_consistency(tree(told[:old]).root, tree(told).root, proof, **sizes)
        with pytest.raises(Exception, match="state does not match"):
            verify_consistency(tree(told[:old]).root, tree([*told[:-1], b"another"]).root, proof, **sizes)


@pytest.mark.parametrize("new", range(1, SIZE_MAX))
def test_scitt_cose_takes_our_consistency_proofs_and_no_other(new: int) -> None:
    """Proofs of pymerkle have a form of their own; these are the RFC's, checked by a verifier of SCITT's receipts."""
    told, random = leaves(new), Random(new)
    after = tree(told).root.hex()
    for old in range(1, new + 1):
        before, path = tree(told[:old]).root.hex(), [one.hex() for one in path_of(told, consistency_spans(old, new))]
        assert path == scitt_cose.consistency_proof([one.hex() for one in told], old, new)
        assert scitt_cose.verify_consistency(before, after, old, new, path)
        assert not scitt_cose.verify_consistency(tree([*told[: old - 1], b"x"]).root.hex(), after, old, new, path)
        assert not scitt_cose.verify_consistency(before, tree([*told[:-1], b"x"]).root.hex(), old, new, path)
        if path:
            at = random.randrange(len(path))
            assert not scitt_cose.verify_consistency(before, after, old, new, [*path[:at], "00" * 32, *path[at + 1 :]])
            assert not scitt_cose.verify_consistency(before, after, old, new, path[:-1])


# What is no proof

Wrong = tuple[str, int, int, list[bytes]]


def wrong_inclusions(number: int, size: int, path: list[bytes]) -> Iterator[Wrong]:
    yield "another leaf's place", number ^ 1, size, path
    yield "before the first", -1, size, path
    yield "beyond the end", size, size, path
    yield "a step more", number, size, [*path, bytes(32)]
    yield "a step before", number, size, [bytes(32), *path]
    yield "turned round", number, size, path[::-1]
    for at in range(len(path)):
        yield "a step less", number, size, path[:at] + path[at + 1 :]
        yield "a bit", number, size, [*path[:at], bytes([path[at][0] ^ 1, *path[at][1:]]), *path[at + 1 :]]


@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 64])
def test_a_path_of_anything_else_does_not_prove_inclusion(size: int) -> None:
    told = leaves(size)
    root = tree(told).root
    for number, leaf in enumerate(told):
        path = path_of(told, inclusion_spans(number, size))
        for what, at, within, steps in wrong_inclusions(number, size, path):
            if (at, within, steps) != (number, size, path):
                assert root_of_inclusion(leaf, number=at, size=within, path=steps) != root, what
        assert root_of_inclusion(b"another", number=number, size=size, path=path) != root


@pytest.mark.parametrize("new", [2, 3, 5, 8, 13, 64])
def test_a_path_of_anything_else_does_not_prove_that_a_log_only_grew(new: int) -> None:
    told = leaves(new)
    for old in range(1, new + 1):
        before, after = tree(told[:old]), tree(told)
        path = path_of(told, consistency_spans(old, new))
        for what, _, _, steps in wrong_inclusions(0, 1, path):
            if steps != path:
                assert not is_consistent(before, after, steps), (what, old)
        other = tree([b"another", *told[1:old]])
        assert not is_consistent(other, after, path)
        assert not is_consistent(before, Tree(new, bytes(32)), path)
        assert not is_consistent(Tree(old - 1, before.root), after, path)
        assert not is_consistent(Tree(-1, before.root), after, path)
        assert old == new or not is_consistent(after, before, path), "a log that shrank"


@given(
    st.integers(-3, 2**70), st.integers(-3, 2**70), st.lists(st.binary(min_size=32, max_size=32), max_size=80),
    st.binary(),
)  # fmt: skip
def test_whatever_is_asked_there_is_an_answer(one: int, other: int, path: list[bytes], leaf: bytes) -> None:
    found = root_of_inclusion(leaf, number=one, size=other, path=path)
    assert found is None or len(found) == 32
    if one != other:
        assert not is_consistent(Tree(one, leaf), Tree(other, bytes(32)), path)


# How much is kept


def test_what_is_kept_of_a_tree_grows_with_its_logarithm() -> None:
    random = Random("kept")
    reading = Reading([*inclusion_spans(random.randrange(5000), 5000), *consistency_spans(4321, 5000)])
    kept = len(reading._kept)
    for number, leaf in enumerate(leaves(5000), 1):
        reading.add(leaf)
        assert len(reading._edge) == number.bit_count()
    assert len(reading._kept) == kept < 60


def test_a_log_that_grows_has_another_root_each_time() -> None:
    told = leaves(SIZE_MAX)
    assert all(tree(told[:old]).root != tree(told[:new]).root for old, new in pairwise(range(SIZE_MAX)))
