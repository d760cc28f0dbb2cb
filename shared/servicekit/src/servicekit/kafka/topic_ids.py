"""Kafka's own id of a topic: a topic that is deleted and made anew under its name has another one.

aiokafka speaks an older version of the request Metadata, which lacks the id. This is version 12 (KIP-516).
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_NONE: Final = UUID(int=0)


class _Id(AbstractType):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_TAGS: Final = ("tags", TaggedFields)
_TEXT: Final = CompactString("utf-8")


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = 3, 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("topic_authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION, API_KEY, API_VERSION, RESPONSE_TYPE = True, 3, 12, _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Id), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _Metadata(Request[_MetadataStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[Any] = [(_NONE, topic, {}) for topic in topics]

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._topics, False, False, {})


async def topic_ids(client: Any, topics: Iterable[str]) -> dict[str, UUID]:
    """The ids of those that exist, asked through this `AIOKafkaClient`. Raises `KafkaError`."""
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker is known yet")
    response = await client.send(node, _Metadata(topics))
    return {topic[1]: topic[2] for topic in response.topics if topic[0] == 0 and topic[2] != _NONE}
