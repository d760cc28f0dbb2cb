"""Topics, users and ACLs of a Kafka cluster, from the list of topics. Whatever is not listed there is refused.

The controller answers before the broker has applied a change, so each call here waits until the broker shows it: a
client that comes at once must not be refused.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

if TYPE_CHECKING:
    from event_contracts.topics import Topic

MAX_MESSAGE_BYTES = 1024 * 1024
SCRAM_ITERATIONS = 4096  # the least that Kafka takes; passwords here are random, so more would only cost time
TIMEOUT = 30.0
HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS  # Kafka's own limit for a segment
ROUND_MS = 10 * 60_000  # what Kafka takes at most until it looks and deletes


def admin_client(bootstrap: str, user: str, password: str) -> AdminClient:
    """An AdminClient that says nothing on stderr while the broker is away."""
    return AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


def create_topics(admin: AdminClient, topics: "Iterable[Topic]") -> None:
    """Create the topics; raises KafkaException for one that exists."""
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=1,
            config={
                "cleanup.policy": "delete",
                **_kept(topic.retention_hours),
                "compression.type": "uncompressed",
                "max.message.bytes": str(MAX_MESSAGE_BYTES),
                "max.decompressed.message.bytes": str(MAX_MESSAGE_BYTES),
            },
        )
        for topic in topics
    ]
    if new:
        _wait(admin.create_topics(new, request_timeout=TIMEOUT))
        _until(lambda: {topic.topic for topic in new} <= admin.list_topics(timeout=TIMEOUT).topics.keys())


def _kept(hours: int | None) -> dict[str, str]:
    """No record stays longer than `hours`. Kafka deletes by the segment, counted from its last record, in rounds."""
    if hours is None:
        return {"retention.ms": "-1"}
    whole = hours * HOUR_MS
    segment = min(whole // 6, WEEK_MS)
    return {"segment.ms": str(segment), "retention.ms": str(whole - segment - ROUND_MS)}


def create_users(admin: AdminClient, passwords: Mapping[str, str]) -> None:
    """Create SCRAM-SHA-512 users (or change their passwords): {user: password}."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
    changes: list[Any] = [
        UserScramCredentialUpsertion(user, info, password.encode()) for user, password in passwords.items()
    ]
    if changes:
        _wait(admin.alter_user_scram_credentials(changes, request_timeout=TIMEOUT))
        _until(lambda: passwords.keys() <= _users(admin))


def create_acls(admin: AdminClient, topics: "Iterable[Topic]") -> None:
    """Allow what the topics list and nothing else: owners write, consumers read within groups named `<user>.…`."""
    bindings = {binding for topic in topics for binding in _bindings(topic)}
    if bindings:
        _wait(admin.create_acls(list(bindings), request_timeout=TIMEOUT))
        _until(lambda: bindings <= _acls(admin))


def serves(admin: AdminClient) -> bool:
    """True when the broker answers and every partition has a leader."""
    try:
        metadata = admin.list_topics(timeout=2)
    except KafkaException:
        return False
    leaders = [partition.leader for topic in metadata.topics.values() for partition in topic.partitions.values()]
    return bool(metadata.brokers) and -1 not in leaders


def _bindings(topic: "Topic") -> Iterable[AclBinding]:
    yield _allow(topic.owner, ResourceType.TOPIC, topic.name, AclOperation.WRITE)
    yield _allow(topic.owner, ResourceType.TOPIC, topic.name, AclOperation.DESCRIBE)
    for user in topic.consumers:
        yield _allow(user, ResourceType.TOPIC, topic.name, AclOperation.READ)
        yield _allow(user, ResourceType.TOPIC, topic.name, AclOperation.DESCRIBE)
        yield _allow(user, ResourceType.GROUP, f"{user}.", AclOperation.READ, ResourcePatternType.PREFIXED)


def _allow(
    user: str,
    resource: ResourceType,
    name: str,
    operation: AclOperation,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(resource, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def _users(admin: AdminClient) -> set[str]:
    everybody: Any = admin.describe_user_scram_credentials(request_timeout=TIMEOUT)  # one future, as no user is named
    return set(everybody.result(TIMEOUT))


def _acls(admin: AdminClient) -> set[AclBinding]:
    whatever: Any = None  # allowed in a filter; the stubs say str
    everything = AclBindingFilter(
        ResourceType.ANY, whatever, ResourcePatternType.ANY, whatever, whatever, AclOperation.ANY, AclPermissionType.ANY
    )
    return set(admin.describe_acls(everything, request_timeout=TIMEOUT).result(TIMEOUT))


def _until(visible: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not visible():
        if time.monotonic() > deadline:
            raise TimeoutError("Kafka accepted a change and did not apply it within 30 s: see the broker's log.")
        time.sleep(0.02)


def _wait(futures: Mapping[Any, Any]) -> None:
    for future in futures.values():
        future.result(TIMEOUT)
