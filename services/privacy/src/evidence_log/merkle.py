"""The Merkle tree of RFC 9162, section 2.1: hashes, inclusion and consistency proofs. Pure.

A *node* is the root of a perfect subtree: (level, index) covers the leaves index·2^level up to (index+1)·2^level. Once it
is there it never changes, so a log stores its nodes and computes everything else from a few of them.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

Node = tuple[int, int]
Span = tuple[int, int]
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes, kept apart from those of nodes by its prefix."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def nodes_of(span: Span) -> list[Node]:
    """The fewest nodes that cover the leaves `start` up to `end`, from left to right; at most two of each level."""
    start, end = span
    nodes = []
    while start < end:
        # the largest subtree that begins here: as far as `start` is divisible, and no further than `end`
        level = min((start & -start).bit_length() - 1 if start else 63, (end - start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def combine(hashes: Sequence[bytes]) -> bytes:
    """The root over the nodes of a span that begins where a subtree of the tree does: all spans of proofs do."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for hash_ in reversed(hashes[:-1]):
        root = node_hash(hash_, root)
    return root


def grow(size: int, edge: Sequence[bytes], leaves: Iterable[bytes]) -> tuple[list[tuple[Node, bytes]], list[bytes]]:
    """Appends leaf hashes to a tree of `size` leaves, whose `edge` are the hashes of `nodes_of((0, size))`.

    Returns the nodes that came into being, the leaves among them, and the edge of the grown tree.
    """
    made: list[tuple[Node, bytes]] = []
    stack = list(edge)
    for position, hash_ in enumerate(leaves, size):
        level, index = 0, position
        made.append(((level, index), hash_))
        while index & 1:
            hash_ = node_hash(stack.pop(), hash_)
            level, index = level + 1, index >> 1
            made.append(((level, index), hash_))
        stack.append(hash_)
    return made, stack


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The spans whose roots are the inclusion proof of one leaf, in the order of the proof (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")
    spans = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """The spans whose roots prove that the tree of `new` leaves begins with that of `old` (RFC 9162, 2.1.4.1)."""
    if not 0 <= old <= new:
        raise ValueError("the newer tree is smaller than the older one")
    if old in (0, new):
        return []
    spans = []
    start, end = 0, new
    whole = True  # whether the rest of the old tree is a subtree whose root the verifier knows
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    if not whole:
        spans.append((start, end))
    return spans[::-1]


def proof(spans: Iterable[Span], node: Callable[[Node], bytes]) -> list[bytes]:
    """The roots of the spans; `node` gives a stored node's hash."""
    return [combine([node(each) for each in nodes_of(span)]) for span in spans]


def verify_inclusion(hash_: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf of this hash stands at `index` of the tree of `size` leaves with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last = index, size - 1
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            hash_ = node_hash(sibling, hash_)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            hash_ = node_hash(hash_, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and hash_ == root


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether the tree of `new` leaves begins with the tree of `old` leaves (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not path and old_root == new_root
    if not 0 < old < new:
        return old == 0 and not path and old_root == EMPTY_ROOT
    hashes = list(path) if old & (old - 1) else [old_root, *path]
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    older = newer = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1
