"""`Event`: the base of every contract. What travels in the record's value; the envelope is `servicekit.kafka.cloudevents`."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from event_contracts.personal import sealed_fields


class Event(BaseModel):
    """A fact, frozen and versioned.

    `topic` is where it is published (a `*` in it is the publishing system), `key` the field whose value is the record key:
    the aggregate whose order is kept.
    Unknown fields are dropped on reading: a consumer of version N reads what a producer of N+1 added.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    topic: ClassVar[str]
    key: ClassVar[str]
    version: ClassVar[int]

    def __init_subclass__(cls, topic: str, key: str, version: int = 1) -> None:
        super().__init_subclass__()
        cls.topic, cls.key, cls.version = topic, key, version

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls.key not in cls.model_fields:
            raise TypeError(f"{cls.__name__}: key={cls.key!r} is not one of its fields")
        sealed_fields(cls)

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type`, such as `OrderPlaced.v1`."""
        return f"{cls.__name__}.v{cls.version}"

    @classmethod
    def topic_of(cls, system: str) -> str:
        """The topic to which this system publishes it."""
        return cls.topic.replace("*", system)

    @property
    def partition_key(self) -> UUID:
        key: UUID = getattr(self, self.key)
        return key
