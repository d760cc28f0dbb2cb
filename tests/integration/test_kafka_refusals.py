"""Who may not write to a topic, or read it, hears which line of the list of topics is missing. On a real Kafka."""

import asyncio
from pathlib import Path

import pytest

from deploy.local.interfaces import KafkaServer, PostgresServer
from event_contracts.topics import Topic
from servicekit.core.errors import KafkaRefuses
from servicekit.core.health import Progress
from servicekit.core.settings import Settings
from servicekit.kafka.batches import Consumes
from servicekit.kafka.client import OutRecord, Producer
from servicekit.kafka.consuming import run_reader
from tests.support.infra import kafka_server, postgres_server
from tests.support.kits import open_test_kit

__all__ = ["kafka_server", "postgres_server"]

TOPIC, OTHER = "counted.events", "other.events"
TOPICS = [Topic(TOPIC, "counter", "counter_id", 1, 1, ()), Topic(OTHER, "other", "counter_id", 1, 1, ())]


@pytest.fixture(scope="module")
def passwords(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`counter` owns a topic, `other` another one, `stranger` none."""
    file = tmp_path_factory.mktemp("passwords") / "password"
    file.write_text("a-password-of-a-test")
    kafka_server.create_users(dict.fromkeys(("counter", "other", "stranger"), file.read_text()))
    kafka_server.create_topics(TOPICS)
    kafka_server.create_acls(TOPICS)
    return file


def settings_of(user: str, kafka_server: KafkaServer, passwords: Path) -> Settings:
    return Settings(kafka_bootstrap=kafka_server.bootstrap, kafka_user=user, kafka_password_file=passwords)


@pytest.mark.parametrize("user", ["other", "stranger"])
async def test_a_producer_hears_that_the_entry_of_the_topic_has_another_owner(
    user: str, kafka_server: KafkaServer, passwords: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To `stranger`, who may write nowhere, Kafka itself does not name the topic."""
    producer = Producer(settings_of(user, kafka_server, passwords))
    try:
        with pytest.raises(KafkaRefuses) as refused:
            await producer.check([TOPIC])
        with pytest.raises(KafkaRefuses) as refused_record:
            await producer.send([OutRecord(TOPIC, b"k", b"v", [])])
    finally:
        await producer.stop()
    for error in (refused.value, refused_record.value):
        assert error.topics == (TOPIC,)
        assert f"refuses the user {user} to write to {TOPIC}." in str(error)
        assert f'lacks "owner": "{user}"' in str(error)
    assert (
        said(caplog) == [{"event": "kafka_refuses", "user": user, "topic": TOPIC, "entry_lacks": f"owner:{user}"}] * 2
    )


@pytest.mark.parametrize("user", ["counter", "stranger"])
async def test_a_reader_hears_that_the_entry_of_the_topic_does_not_name_it(
    user: str,
    kafka_server: KafkaServer,
    postgres_server: PostgresServer,
    passwords: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`counter` may look at its own topic but not read it: the client library tried for ever, and nobody heard of it."""
    dsns, stopping = postgres_server.create_system_database(user), asyncio.Event()
    async with open_test_kit(user, dsns, settings_of(user, kafka_server, passwords)) as kit:
        progress = Progress(kit.clock, 60)
        reading = asyncio.create_task(run_reader(kit, Consumes(topics=(TOPIC,)), stopping, progress))
        async with asyncio.timeout(120):
            while not said(caplog):
                await asyncio.sleep(0.05)
        stopping.set()
        await reading
    assert said(caplog)[0] == {
        "event": "kafka_refuses",
        "user": user,
        "topic": TOPIC,
        "entry_lacks": f"consumers:{user}",
    }


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The refusals in the log."""
    fields = [getattr(record, "_safe_fields", {}) for record in caplog.records]
    return [each for each in fields if each.get("event") == "kafka_refuses"]
