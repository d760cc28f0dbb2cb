"""The Merkle tree against the known hashes of RFC 6962's reference log, and against a naive tree written from the text."""

import random
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence_log.merkle import (
    EMPTY_ROOT,
    Node,
    combine,
    consistency_spans,
    grow,
    inclusion_spans,
    leaf_hash,
    nodes_of,
    proof,
    verify_consistency,
    verify_inclusion,
)

# The leaves and roots of the reference implementation of RFC 6962 (certificate-transparency, merkletree tests).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, as it stands there."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + naive_root(hashes[:k]) + naive_root(hashes[k:])).digest()


def naive_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH of 2.1.3.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*naive_path(m, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive_root(hashes[:k])]


def naive_consistency(m: int, hashes: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of 2.1.4.1."""
    n = len(hashes)
    if m == n:
        return [] if whole else [naive_root(hashes)]
    k = 1
    while k * 2 < n:
        k *= 2
    if m <= k:
        return [*naive_consistency(m, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_consistency(m - k, hashes[k:], False), naive_root(hashes[:k])]


class Stored:
    """A log that keeps nodes only."""

    def __init__(self) -> None:
        self.nodes: dict[Node, bytes] = {}
        self.size = 0

    def append(self, hashes: Sequence[bytes]) -> bytes:
        edge = [self.nodes[node] for node in nodes_of((0, self.size))]
        made, edge = grow(self.size, edge, hashes)
        assert not self.nodes.keys() & dict(made).keys(), "a node was made twice"
        self.nodes |= dict(made)
        self.size += len(hashes)
        return combine(edge)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_reference_log(size: int) -> None:
    assert Stored().append([leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size - 1]


def test_the_empty_tree_and_the_empty_leaf_have_their_known_hashes() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Stored().append([]) == EMPTY_ROOT
    assert leaf_hash(b"").hex() == ROOTS[0]


def test_the_reference_logs_inclusion_and_consistency_proofs() -> None:
    log = Stored()
    log.append([leaf_hash(leaf) for leaf in LEAVES])
    path = proof(inclusion_spans(5, 8), log.nodes.__getitem__)
    assert [hash_.hex() for hash_ in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    path = proof(consistency_spans(6, 8), log.nodes.__getitem__)
    assert [hash_.hex() for hash_ in path] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_every_proof_of_every_tree_up_to_forty_leaves_is_that_of_the_text() -> None:
    hashes = [leaf_hash(bytes([n])) for n in range(40)]
    log = Stored()
    for hash_ in hashes:
        log.append([hash_])
    roots = [naive_root(hashes[:size]) for size in range(41)]
    for size in range(1, 41):
        for index in range(size):
            path = proof(inclusion_spans(index, size), log.nodes.__getitem__)
            assert path == naive_path(index, hashes[:size])
            assert verify_inclusion(hashes[index], index, size, path, roots[size])
        for old in range(1, size + 1):
            path = proof(consistency_spans(old, size), log.nodes.__getitem__)
            assert path == naive_consistency(old, hashes[:size])
            assert verify_consistency(old, size, path, roots[old], roots[size])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_tree_that_grew_in_batches_of_any_size_is_the_tree_of_all_leaves(
    batches: list[int], chance: random.Random
) -> None:
    log, hashes = Stored(), list[bytes]()
    for size in batches:
        new = [leaf_hash(chance.randbytes(5)) for _ in range(size)]
        hashes += new
        assert log.append(new) == naive_root(hashes)
    if not hashes:
        return
    size, index, old = len(hashes), chance.randrange(len(hashes)), chance.randint(1, len(hashes))
    path = proof(inclusion_spans(index, size), log.nodes.__getitem__)
    assert verify_inclusion(hashes[index], index, size, path, naive_root(hashes))
    path = proof(consistency_spans(old, size), log.nodes.__getitem__)
    assert verify_consistency(old, size, path, naive_root(hashes[:old]), naive_root(hashes))


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 70), st.randoms(use_true_random=False))
def test_a_changed_proof_proves_nothing(size: int, chance: random.Random) -> None:
    hashes = [leaf_hash(n.to_bytes(4)) for n in range(size)]
    log = Stored()
    root = log.append(hashes)
    index, old = chance.randrange(size), chance.randint(1, size - 1)
    path = proof(inclusion_spans(index, size), log.nodes.__getitem__)
    other = chance.randrange(len(path))
    wrong = [*path[:other], leaf_hash(path[other]), *path[other + 1 :]]
    assert not verify_inclusion(hashes[index], index, size, wrong, root)
    assert not verify_inclusion(hashes[index], index, size, path[:-1], root)
    assert not verify_inclusion(hashes[index], index, size, [*path, path[0]], root)
    assert not verify_inclusion(hashes[index], (index + 1) % size, size, path, root)
    chain, old_root = proof(consistency_spans(old, size), log.nodes.__getitem__), naive_root(hashes[:old])
    other = chance.randrange(len(chain))
    wrong = [*chain[:other], leaf_hash(chain[other]), *chain[other + 1 :]]
    assert not verify_consistency(old, size, wrong, old_root, root)
    assert not verify_consistency(old, size, chain[:-1], old_root, root)
    assert not verify_consistency(old, size, [*chain, chain[0]], old_root, root)
    assert not verify_consistency(old, size, chain, leaf_hash(old_root), root)


@pytest.mark.parametrize("size", [2**20, 2**40 + 1, 2**40 - 1, 987_654_321])
def test_work_grows_with_the_logarithm_of_the_log(size: int) -> None:
    assert len(nodes_of((0, size))) <= size.bit_length()
    spans = inclusion_spans(size // 3, size)
    assert len(spans) <= size.bit_length()
    assert sum(len(nodes_of(span)) for span in spans) <= 2 * size.bit_length()
    assert len(consistency_spans(size // 3, size)) <= 2 * size.bit_length()
