"""A real Kafka in the place of the simulation's broker: what is produced and read goes through it, record by record."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import confluent_kafka
from confluent_kafka import TopicPartition

from deploy.local.interfaces import KafkaServer
from event_contracts.topics import TOPICS, Topic
from servicekit.core.settings import Settings
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.cloudevents import RawRecord
from tests.faults.simulation_broker import PARTITIONS, Broker, Logs

SECONDS = 30


class KafkaBroker(Broker):
    """The same interface. Services write with the kit's own producer. Offsets count from where the topics ended before.

    Nobody else may write to the topics meanwhile: what is written is counted, and read before anybody looks.
    """

    def __init__(self, settings: Settings, login: dict[str, str]) -> None:
        super().__init__()
        self._services = Producer(settings)
        self._others = confluent_kafka.Producer({**login, "partitioner": "murmur2_random", "enable.idempotence": True})
        self._consumer = confluent_kafka.Consumer({**login, "group.id": "unused", "enable.auto.commit": False})
        places = [TopicPartition(*place) for place in self.places(list(PARTITIONS))]
        self._starts = {(place.topic, place.partition): self._end_of(place) for place in places}
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._starts.items()])
        self._written = self._read = 0

    def _end_of(self, place: TopicPartition) -> int:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                found: int = self._consumer.get_watermark_offsets(place, timeout=SECONDS)[1]
                return found
            except confluent_kafka.KafkaException:
                # A topic that was just made has no leader yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @property
    def logs(self) -> Logs:
        """Read up to what was written."""
        while self._read < self._written:
            messages = self._consumer.consume(self._written - self._read, timeout=SECONDS)
            assert messages, "Kafka does not hand out what it has acknowledged"
            for message in messages:
                assert message.error() is None
                self._take(message)
        return self._logs

    def _take(self, message: confluent_kafka.Message) -> None:
        topic, partition = message.topic() or "", message.partition() or 0
        log = self._logs[topic][partition]
        offset = (message.offset() or 0) - self._starts[topic, partition]
        assert offset == len(log), "offsets have no gap"
        headers = tuple((name, value) for name, value in message.headers() or ())
        log.append(RawRecord(topic, partition, offset, message.key(), message.value(), headers))
        self._read += 1

    async def write(self, records: Sequence[OutRecord]) -> None:
        await self._services.send(records)
        self._written += len(records)

    def append(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> None:
        self._others.produce(topic, key=key, value=value, headers=list(headers))
        assert self._others.flush(SECONDS) == 0
        self._written += 1

    async def close(self) -> None:
        await self._services.stop()
        self._consumer.close()


def simulated_topics() -> list[Topic]:
    """Those of the product, with the partitions of the simulation."""
    return [replace(topic, partitions=PARTITIONS[topic.name]) for topic in TOPICS]


def make_topics(server: KafkaServer) -> None:
    """Once."""
    server.create_topics(simulated_topics())


def broker_on(server: KafkaServer, folder: Path) -> KafkaBroker:
    """As the super user: who may do what is another test's."""
    password = folder / "password"
    password.write_text(server.admin_password)
    # The producer refuses a topic with another number of partitions than is declared.
    topics = folder / "topics.json"
    topics.write_text(json.dumps([asdict(topic) for topic in simulated_topics()]))
    settings = Settings(
        kafka_bootstrap=server.bootstrap,
        kafka_user=server.admin_user,
        kafka_password_file=password,
        topics_files=(topics,),
    )
    login = {
        "bootstrap.servers": server.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": server.admin_user,
        "sasl.password": server.admin_password,
        "fetch.wait.max.ms": "5",
        "log_level": "0",
    }
    return KafkaBroker(settings, login)
