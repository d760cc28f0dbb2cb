"""L7, S2, S3: who may touch what, cell by cell, against tables written by hand (expected/)."""

import os
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from deploy.local.http import open_http
from deploy.local.kafka_admin import admin_client
from deploy.local.keys import identity_file
from deploy.local.stack import Stack
from servicekit.core.clock import Clock
from servicekit.core.policy import Policy
from servicekit.vault.client import ServiceIdentity

EXPECTED = Path(__file__).parent / "expected"
SERVICES = ("account", "order", "logistics-gateway", "privacy", "vault", "reviews")
CARRIERS = ("meridian", "pacifica")
OWN_TABLE = {
    "account": "accounts",
    "order": "orders",
    "logistics-gateway": "disclosures",
    "privacy": "inventory",
    "vault": "keys",
    "reviews": "reviews",
}
OWNER_OPERATIONS = {AclOperation.WRITE, AclOperation.DESCRIBE}
READER_OPERATIONS = {AclOperation.READ, AclOperation.DESCRIBE}


def table(name: str) -> list[list[str]]:
    lines = (EXPECTED / name).read_text().splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines if line and not line.startswith("#")]


def names(cell: str) -> set[str]:
    return set() if cell == "-" else set(cell.split(","))


def as_user(stack: Stack, user: str) -> AdminClient:
    return admin_client(stack.kafka.bootstrap, *stack.kafka_credentials(user))


def allowed_operations(client: AdminClient, topics: list[str]) -> dict[str, set[AclOperation]]:
    """What the broker says that this user may do with each topic."""
    asked = client.describe_topics(TopicCollection(topics), include_authorized_operations=True, request_timeout=10)
    allowed: dict[str, set[AclOperation]] = {}
    for topic, future in asked.items():
        try:
            allowed[topic] = set(future.result().authorized_operations)
        except KafkaException:
            allowed[topic] = set()
    return allowed


@pytest.mark.attack(
    "a service or a carrier uses a topic that is not its own",
    expected="exactly the operations of the hand-written table",
)
def test_every_kafka_user_has_exactly_the_operations_of_the_table(stack: Stack) -> None:
    rows = {topic: (names(writers), names(readers)) for topic, writers, readers in table("kafka.txt")}
    live = {name for name in stack.kafka.admin.list_topics(timeout=10).topics if not name.startswith("__")}
    assert live == set(rows)
    internal = [name for name in stack.kafka.admin.list_topics(timeout=10).topics if name.startswith("__")]
    for user in (*SERVICES, *CARRIERS):
        actual = allowed_operations(as_user(stack, user), [*sorted(live), *internal])
        expected = {
            topic: (OWNER_OPERATIONS if user in writers else set()) | (READER_OPERATIONS if user in readers else set())
            for topic, (writers, readers) in rows.items()
        }
        assert actual == expected | {topic: set() for topic in internal}, user


@pytest.mark.attack("a service or a carrier writes into the topic of another", expected="the broker refuses")
async def test_a_refused_write_is_refused_by_the_broker_and_an_allowed_one_is_not(stack: Stack) -> None:
    for user, own, foreign in (
        ("order", "order.events", "account.events"),
        ("meridian", "carrier.meridian.replies", "carrier.pacifica.replies"),
        ("account", "account.events", "carrier.meridian.shipments"),
    ):
        name, password = stack.kafka_credentials(user)
        producer = AIOKafkaProducer(
            bootstrap_servers=stack.kafka.bootstrap,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=name,
            sasl_plain_password=password,
            acks="all",
        )
        async with producer:
            with pytest.raises(KafkaError):
                await producer.send_and_wait(foreign, b"not allowed")
            if user == "meridian":
                await producer.send_and_wait(own, b"garbage, which the gateway puts into quarantine")


@pytest.mark.attack("a service or a carrier makes a topic", expected="the broker refuses")
def test_no_user_may_create_or_change_anything(stack: Stack) -> None:
    from confluent_kafka.admin import NewTopic

    for user in (*SERVICES, *CARRIERS):
        client = as_user(stack, user)
        (created,) = client.create_topics([NewTopic("unlisted", 1, 1)], request_timeout=10).values()
        with pytest.raises(KafkaException):
            created.result()


@pytest.mark.attack(
    "a service opens or seals a class that it has no grant for",
    expected="403 in every cell without a grant",
)
async def test_every_cell_of_service_class_and_purpose(stack: Stack) -> None:
    """An unknown key is asked for: 404 says that the grant is there, 403 that it is not."""
    rows = {
        (service, data_class): (names(open_for), seals == "yes")
        for service, data_class, open_for, seals in table("vault.txt")
    }
    policy = Policy.load(map(Path, stack.env_of("vault")["POLICY_FILES"].split(os.pathsep)))
    async with open_http(stack.url("vault")) as http:
        cells = 0
        for service in SERVICES:
            identity = ServiceIdentity(service, identity_file(stack.keys, service).read_bytes(), Clock())
            headers = {"Authorization": f"Bearer {identity.token()}"}
            for data_class in policy.classes:
                open_for, seals = rows.get((service, data_class), (set(), False))
                for purpose in policy.purposes:
                    status = await _lease(http, headers, data_class, purpose)
                    assert status == (404 if purpose in open_for else 403), (service, data_class, purpose)
                    cells += 1
                key = {"subject": str(uuid4()), "data_class": data_class, "anchor": str(uuid4())}
                answer = await http.post("/v1/keys/ensure", json={"keys": [key], "index": []}, headers=headers)
                assert answer.status_code == (200 if seals else 403), (service, data_class)
        assert cells == len(SERVICES) * len(policy.classes) * len(policy.purposes)


async def _lease(http: httpx.AsyncClient, headers: dict[str, str], data_class: str, purpose: str) -> int:
    key = {"key_id": str(uuid4()), "subject": str(uuid4()), "data_class": data_class, "anchor": str(uuid4())}
    body: dict[str, Any] = {"purpose": purpose, "keys": [key]}
    return (await http.post("/v1/keys/lease", json=body, headers=headers)).status_code


@pytest.mark.attack(
    "a database password is used on another service's database",
    expected="no connection, no change of the schema",
)
async def test_every_database_role_reaches_its_own_database_only(stack: Stack) -> None:
    for role in SERVICES:
        for database in SERVICES:
            dsn = stack.dsn(role)
            target = stack.dsn(database).rpartition("/")[2]
            try:
                connection = await asyncpg.connect(dsn, database=target)
            except asyncpg.InsufficientPrivilegeError:
                assert role != database, (role, database)
            else:
                assert role == database, (role, database)
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("CREATE TABLE mine (id integer)")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f"ALTER TABLE {OWN_TABLE[role]} ADD COLUMN more integer")
                await connection.close()
