"""Kafka and PostgreSQL for tests: embedded by default, from containers with TEST_INFRA=docker.

A test module takes them with `from tests.support.infra import kafka_server, postgres_server` (pytest fixtures, one of
each per module), or calls `new_kafka` and `new_postgres`, for instance for `Stack(kafka=…, postgres=…)`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.given_postgres import choose_postgres
from deploy.local.interfaces import KafkaServer, PostgresServer
from deploy.local.kafka import Kafka


def in_containers() -> bool:
    """True when TEST_INFRA asks for containers. Raises ValueError for a value that is neither docker nor embedded."""
    asked = os.environ.get("TEST_INFRA", "embedded")
    if asked not in ("docker", "embedded"):
        raise ValueError("TEST_INFRA is neither `docker` nor `embedded`: unset it or correct it.")
    return asked == "docker"


def new_kafka(folder: Path) -> KafkaServer:
    """A Kafka that is not started yet; `folder` is for an embedded one's data."""
    if in_containers():
        from tests.support.containers import ContainerKafka  # needs an engine's client library

        return ContainerKafka()
    return Kafka(folder)


def new_postgres() -> PostgresServer:
    """A PostgreSQL that is not started yet; embedded, unless TEST_INFRA or POSTGRES_DSN says otherwise."""
    if in_containers():
        from tests.support.containers import ContainerPostgres

        return ContainerPostgres()
    return choose_postgres()


@pytest.fixture(scope="module")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running Kafka without topics or users."""
    kafka = new_kafka(tmp_path_factory.mktemp("kafka") / "kafka")
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL without databases of ours."""
    postgres = new_postgres()
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.close()
