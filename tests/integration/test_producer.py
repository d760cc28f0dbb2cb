"""The producer on a real Kafka that stops answering."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from deploy.local.interfaces import KafkaServer
from event_contracts.topics import Topic
from servicekit.core.settings import Settings
from servicekit.kafka import client as kafka
from servicekit.kafka.client import OutRecord, Producer, read_again
from tests.support.infra import kafka_server

__all__ = ["kafka_server"]

USER, TOPIC = "counter", "counted.events"


@pytest.mark.fault(2, "the broker stalls until the producer gives up")
async def test_what_was_given_up_is_not_sent_behind_what_came_after_it(
    kafka_server: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was closed half-way went on trying, and sent the old batch when the broker was back."""
    pid = getattr(kafka_server, "pid", None)
    if pid is None:
        pytest.skip("needs a Kafka that is a process of this machine")
    (tmp_path / "password").write_text("a-password-of-a-test")
    topics = [Topic(TOPIC, USER, "counter_id", 1, 1, (USER,))]
    kafka_server.create_users({USER: "a-password-of-a-test"})
    kafka_server.create_topics(topics)
    kafka_server.create_acls(topics)
    settings = Settings(
        kafka_bootstrap=kafka_server.bootstrap, kafka_user=USER, kafka_password_file=tmp_path / "password"
    )
    producer = Producer(settings)
    await producer.send([OutRecord(TOPIC, b"k", b"first", [])])
    tasks = len(asyncio.all_tasks())
    monkeypatch.setattr(kafka, "SEND_TIMEOUT", 1.0)
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await producer.send([OutRecord(TOPIC, b"k", b"given up", [])])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(asyncio.all_tasks()) < tasks
    monkeypatch.setattr(kafka, "SEND_TIMEOUT", 12.0)
    await producer.send([OutRecord(TOPIC, b"k", b"last", [])])
    await asyncio.sleep(2)
    await producer.send([OutRecord(TOPIC, b"k", b"end", [])])
    values = []
    while not values or values[-1] != b"end":
        record = await read_again(settings, TOPIC, 0, len(values))
        assert record is not None
        values.append(record.value)
    await producer.stop()
    assert values[values.index(b"last") :] == [b"last", b"end"]
