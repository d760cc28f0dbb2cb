"""Where records go: the partition of a key is the one that every other client would choose."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from servicekit.kafka.client import key_hash


@given(st.binary(max_size=80))
def test_a_key_has_the_hash_that_other_clients_give_it(key: bytes) -> None:
    assert key_hash(key) == murmur2(key) & 0x7FFFFFFF
