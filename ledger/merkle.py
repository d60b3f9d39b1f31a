"""The Merkle tree over the log (RFC 9162 section 2.1, which is RFC 6962's): roots, paths, and how they are checked.

The leaf of a row is its link, the hash that chains it: what a root commits to is then what the chain commits to, and
whoever is shown a row and the link before it computes the leaf with `ledger.chain.link`. Alternative beaten: the row's
encoding itself as the leaf, a second hash over every byte of the log that proves nothing more.

A tree is read once, leaf by leaf, and kept nowhere. Every root and every step of a path is the hash of a span of
leaves, and every span is a few full subtrees; so who reads says beforehand which spans it wants, and the reading keeps
the log2(n) subtrees at its edge, and of those that it passes the wanted ones. Checking is written apart from that, as
the RFC gives it, and knows no spans.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeAlias

HASH_BYTES = 32
EMPTY_ROOT = sha256().digest()
"""Of the tree without leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """Of a leaf; the first byte keeps it from being taken for a node (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of a node over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Span(NamedTuple):
    """The leaves from number *start*, counted from 0, up to and without *end*."""

    start: int
    end: int


_Subtree: TypeAlias = tuple[int, int]
"""A full subtree of 2**level leaves, and which of that size: level, number."""


class Reading:
    """A tree as it is read, and the hashes of the spans that are wanted of it."""

    def __init__(self, wanted: Iterable[Span] = ()) -> None:
        self.size = 0
        self._edge: list[bytes] = []
        """The full subtrees that all leaves so far make up, from the left; their sizes fall."""
        self._kept: dict[_Subtree, bytes | None] = {one: None for span in wanted for one in _subtrees(span)}

    def add(self, leaf: bytes) -> None:
        """Add the next leaf."""
        edge, kept = self._edge, self._kept
        level, number, subtree = 0, self.size, leaf_hash(leaf)
        if (level, number) in kept:
            kept[level, number] = subtree
        while number & 1:
            subtree = node_hash(edge.pop(), subtree)
            level, number = level + 1, number >> 1
            if (level, number) in kept:
                kept[level, number] = subtree
        edge.append(subtree)
        self.size += 1

    @property
    def root(self) -> bytes:
        """Of all leaves so far."""
        return _joined(self._edge)

    def hash_of(self, span: Span) -> bytes:
        """The hash of a span that was wanted, and has been read."""
        hashes = []
        for subtree in _subtrees(span):
            found = self._kept[subtree]
            assert found is not None, "it has been read"
            hashes.append(found)
        return _joined(hashes)


def _subtrees(span: Span) -> Iterable[_Subtree]:
    """The full subtrees that *span* is made of, from the left; it begins where its largest one may begin."""
    start, end = span
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _joined(subtrees: Sequence[bytes]) -> bytes:
    """The hash over subtrees of falling size."""
    if not subtrees:
        return EMPTY_ROOT
    *rest, joined = subtrees
    for left in reversed(rest):
        joined = node_hash(left, joined)
    return joined


# What a proof is made of


def inclusion_spans(number: int, size: int) -> list[Span]:
    """The spans whose hashes are the path of leaf *number* in a tree of *size* leaves (RFC 9162 section 2.1.3.1)."""
    assert 0 <= number < size
    start, end, path = 0, size, []
    while end - start > 1:
        split = _split(start, end)
        if number < split:
            path.append(Span(split, end))
            end = split
        else:
            path.append(Span(start, split))
            start = split
    return path[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """The spans whose hashes prove that *new* leaves begin with those *old* ones (RFC 9162 section 2.1.4.1).

    There are none if the trees are the same, or the old one is empty: the RFC has no proof of that, and it needs none.
    """
    assert 0 <= old <= new
    if old == 0:
        return []
    start, end, path = 0, new, []
    while end != old:
        split = _split(start, end)
        if old <= split:
            path.append(Span(split, end))
            end = split
        else:
            path.append(Span(start, split))
            start = split
    if start > 0:
        path.append(Span(start, end))
    return path[::-1]


def _split(start: int, end: int) -> int:
    """Where the left subtree of these leaves ends: at the largest power of two that leaves something."""
    return start + (1 << (end - start - 1).bit_length() - 1)


# How it is checked


def root_of_inclusion(leaf: bytes, *, number: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that *leaf* at *number* has with this path in a tree of *size*; None: the path is of another tree.

    RFC 9162 section 2.1.3.2.
    """
    if not 0 <= number < size:
        return None
    at, last, root = number, size - 1, leaf_hash(leaf)
    for step in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            root = node_hash(step, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, step)
        at, last = at >> 1, last >> 1
    return root if last == 0 else None


class Tree(NamedTuple):
    """A tree: how many leaves, and its root."""

    size: int
    root: bytes


def is_consistent(old: Tree, new: Tree, path: Sequence[bytes]) -> bool:
    """Whether *path* proves that *new* begins with all of *old* (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old.size <= new.size:
        return False
    if old.size == new.size:
        return not path and old.root == new.root
    if old.size == 0:
        return not path and old.root == EMPTY_ROOT
    return _roots_of_consistency(old, new.size, path) == (old.root, new.root)


def _roots_of_consistency(old: Tree, new_size: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots that the path gives, of the smaller and of the larger tree; None: it is of other trees."""
    steps = [old.root, *path] if old.size & (old.size - 1) == 0 else [*path]
    if not steps:
        return None
    at, last = old.size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_root = new_root = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if at & 1 or at == last:
            old_root, new_root = node_hash(step, old_root), node_hash(step, new_root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new_root = node_hash(new_root, step)
        at, last = at >> 1, last >> 1
    return (old_root, new_root) if last == 0 else None
