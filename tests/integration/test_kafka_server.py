"""Whom Kafka refuses, what survives its kill, and which jars are not run."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from deploy.local import jars
from deploy.local.interfaces import KafkaServer
from deploy.local.kafka_admin import admin_client
from deploy.local.processes import StackError
from event_contracts.topics import Topic
from tests.support.infra import in_containers, kafka_server

__all__ = ["kafka_server"]  # fixtures

ORDERS = Topic("test.orders", "writer", "order_id", 3, 24, ("reader",))
KEPT = Topic("test.kept", "writer", "order_id", 3, 24, ("reader",))
OTHERS = Topic("test.others", "stranger", "id", 1, None, ())
USERS = {"writer": "w-secret", "reader": "r-secret", "stranger": "s-secret"}


@pytest.fixture(scope="module")
def kafka(kafka_server: KafkaServer) -> KafkaServer:
    """With three topics and three users: one writes, one reads, one may do neither."""
    kafka_server.create_users(USERS)
    kafka_server.create_topics([ORDERS, KEPT, OTHERS])
    kafka_server.create_acls([ORDERS, KEPT, OTHERS])
    return kafka_server


def client(kafka: KafkaServer, user: str, password: str | None = None) -> dict[str, str | bool | int]:
    return {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password or USERS[user],
        "log_level": 0,
    }


def produce(
    kafka: KafkaServer, user: str, topic: str, values: list[bytes], more: Mapping[str, str | int] | None = None
) -> set[str]:
    """Produce; returns the names of the errors (an empty set when all were written)."""
    errors: set[str] = set()

    def report(error: KafkaError | None, message: object) -> None:
        if error is not None:
            errors.add(error.name())

    # Only where it is allowed: the refusal is a fatal error then, which this client raises in the middle of its
    # callbacks.
    settings = {"enable.idempotence": user == "writer" and topic != "test.others", "message.timeout.ms": 10_000}
    producer = Producer({**client(kafka, user), **settings, **(more or {})})
    for value in values:
        producer.produce(topic, value, key=b"k", on_delivery=report)
    producer.flush(30)
    return errors


def consume(kafka: KafkaServer, user: str, group: str, topic: str, count: int) -> list[bytes]:
    """Read `count` values from the beginning; raises KafkaException when refused."""
    consumer = Consumer({**client(kafka, user), "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    try:
        while len(values) < count:
            assert time.monotonic() < deadline, f"{len(values)} of {count} records within 30 s"
            message = consumer.poll(1)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            values.append(message.value() or b"")
    finally:
        consumer.close()
    return values


def test_listed_users_write_and_read(kafka: KafkaServer) -> None:
    assert produce(kafka, "writer", "test.orders", [b"one", b"two"]) == set()
    assert consume(kafka, "reader", "reader.first", "test.orders", 2) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("user", "topic"), [("reader", "test.orders"), ("stranger", "test.orders"), ("writer", "test.others")]
)
def test_writing_that_is_not_listed_is_refused(kafka: KafkaServer, user: str, topic: str) -> None:
    assert produce(kafka, user, topic, [b"x"]) == {"TOPIC_AUTHORIZATION_FAILED"}


@pytest.mark.parametrize(
    ("user", "group", "refusal"),
    [
        ("writer", "writer.g", "TOPIC_AUTHORIZATION_FAILED"),  # the owner writes, and does not read
        ("stranger", "stranger.g", "TOPIC_AUTHORIZATION_FAILED"),
        ("reader", "writer.g", "GROUP_AUTHORIZATION_FAILED"),  # not under another one's name
        ("reader", "readers", "GROUP_AUTHORIZATION_FAILED"),  # the prefix ends with a dot
    ],
)
def test_reading_that_is_not_listed_is_refused(kafka: KafkaServer, user: str, group: str, refusal: str) -> None:
    with pytest.raises(KafkaException) as caught:
        consume(kafka, user, group, "test.orders", 1)
    assert caught.value.args[0].name() in {refusal, "GROUP_AUTHORIZATION_FAILED"}


@pytest.mark.attack("a record that is small on the wire and large when it is read", expected="refused")
def test_a_record_that_is_large_once_decompressed_is_refused(kafka: KafkaServer) -> None:
    """Each reader would hold all of it in memory."""
    compressed = {"compression.type": "gzip", "message.max.bytes": 64 * 1024 * 1024}
    assert produce(kafka, "writer", "test.orders", [b"0" * 8 * 1024 * 1024], compressed) == {"INVALID_RECORD"}
    assert produce(kafka, "writer", "test.orders", [b"0" * 512 * 1024], compressed) == set()


@pytest.mark.attack("a Kafka user administers the broker", expected="refused")
def test_users_cannot_administer(kafka: KafkaServer) -> None:
    admin = admin_client(kafka.bootstrap, "writer", USERS["writer"])
    for future in admin.delete_topics(["test.orders"]).values():
        with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
            future.result(10)


@pytest.mark.parametrize(("user", "password"), [("writer", "wrong"), ("nobody", "w-secret")])
def test_a_wrong_password_is_refused(kafka: KafkaServer, user: str, password: str) -> None:
    errors: list[str] = []
    producer = Producer({**client(kafka, user, password), "error_cb": lambda error: errors.append(error.name())})
    deadline = time.monotonic() + 20
    while "_AUTHENTICATION" not in errors and time.monotonic() < deadline:
        producer.poll(0.2)
    assert "_AUTHENTICATION" in errors


@pytest.mark.attack("Kafka without a password", expected="refused")
def test_nobody_gets_in_without_a_password(kafka: KafkaServer) -> None:
    anonymous = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        anonymous.list_topics(timeout=3)


def test_topics_are_not_created_by_use(kafka: KafkaServer) -> None:
    produce(kafka, "writer", "test.unlisted", [b"x"])
    assert set(kafka.admin.list_topics(timeout=10).topics) - {"__consumer_offsets"} == {
        "test.orders",
        "test.kept",
        "test.others",
    }


def test_topics_of_a_third_party_join_later(kafka: KafkaServer) -> None:
    later = Topic("test.later", "stranger", "id", 1, 1, ("reader",))
    assert produce(kafka, "stranger", "test.later", [b"x"])
    kafka.create_topics([later])
    kafka.create_acls([later])
    try:
        assert produce(kafka, "stranger", "test.later", [b"joined"]) == set()
        assert consume(kafka, "reader", "reader.later", "test.later", 1) == [b"joined"]
    finally:
        for future in kafka.admin.delete_topics(["test.later"]).values():
            future.result(10)


@pytest.mark.fault(2, "kill -9 of an idle broker")
def test_the_broker_comes_back_after_a_kill_with_its_data_users_and_acls(kafka: KafkaServer) -> None:
    values = [b"before-%d" % number for number in range(20)]
    assert produce(kafka, "writer", "test.kept", values) == set()
    address, pid = kafka.bootstrap, kafka.pid
    kafka.kill()
    kafka.start()
    assert kafka.bootstrap == address
    assert in_containers() or kafka.pid != pid
    assert produce(kafka, "writer", "test.kept", [b"after"]) == set()
    assert set(consume(kafka, "reader", "reader.after", "test.kept", 21)) == {*values, b"after"}
    assert produce(kafka, "stranger", "test.kept", [b"x"])


@pytest.fixture
def jar_folder(tmp_path: Path) -> Path:
    """A copy of the cached jars, to be tampered with."""
    source = jars.kafka_jars()[0].parent
    return Path(shutil.copytree(source, tmp_path / "jars"))


def test_verified_jars_are_not_hashed_again(jar_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars.kafka_jars(folder=jar_folder)
    monkeypatch.delattr(jars, "_sha256")
    assert len(jars.kafka_jars(folder=jar_folder)) == len(jars.read_lock(jars.LOCK_FILE)) > 40


def test_a_changed_jar_is_refused_even_with_its_old_size_and_time(jar_folder: Path) -> None:
    victim = jars.kafka_jars(folder=jar_folder)[7]
    before = victim.stat()
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StackError, match=victim.name):
        jars.kafka_jars(folder=jar_folder)


def test_a_jar_that_is_missing_or_not_listed_is_refused(jar_folder: Path) -> None:
    shutil.copy(jars.kafka_jars(folder=jar_folder)[0], jar_folder / "stowaway-1.0.jar")
    with pytest.raises(StackError, match=r"stowaway-1\.0\.jar"):
        jars.kafka_jars(folder=jar_folder)
    (jar_folder / "stowaway-1.0.jar").unlink()
    next(jar_folder.glob("kafka-clients-*.jar")).unlink()
    with pytest.raises(StackError, match="kafka-clients"):
        jars.kafka_jars(folder=jar_folder)


def test_a_changed_lock_file_is_noticed(jar_folder: Path, tmp_path: Path) -> None:
    lines = jars.LOCK_FILE.read_text().splitlines()
    lines[3] = lines[3][:-1] + ("0" if lines[3][-1] != "0" else "1")
    (tmp_path / "kafka.lock").write_text("\n".join(lines))
    (jar_folder / jars.STAMP).unlink()
    with pytest.raises(StackError, match="is not the file that was locked"):
        jars.kafka_jars(tmp_path / "kafka.lock", jar_folder)
