"""Controls: values planted in clear, one per store and place, that a search must find or it proves nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from confluent_kafka import Producer

from deploy.local.interfaces import KafkaServer

CONTROL_TOPIC = "controls"
CONTROL_DATABASE = "controls"


@dataclass(frozen=True)
class Control:
    """What was planted where. `name` says the store and the place."""

    name: str
    value: str


def make_controls(folders: tuple[str, ...]) -> list[Control]:
    """One control for each place in Kafka and Postgres, and for each folder."""
    places = ("kafka value", "kafka key", "kafka header", "row", "compressible row", "quarantine", "wal", *folders)
    return [Control(place, f"Control {place} {secrets.token_hex(8)}") for place in places]


async def plant(controls: list[Control], kafka: KafkaServer, admin_dsn: str, folders: dict[str, Path]) -> None:
    """Writes each control to its place, by other ways than the product's own code."""
    value_of = {control.name: control.value for control in controls}
    _plant_in_kafka(kafka, value_of)
    connection = await asyncpg.connect(admin_dsn)
    await connection.execute(f"CREATE DATABASE {CONTROL_DATABASE}")
    # In the write-ahead log and nowhere else.
    await connection.execute("SELECT pg_logical_emit_message(true, 'control', $1::text)", value_of["wal"])
    await connection.close()
    connection = await asyncpg.connect(admin_dsn, database=CONTROL_DATABASE)
    await connection.execute("CREATE TABLE rows (value text); CREATE TABLE quarantine (record bytea)")
    await connection.execute("INSERT INTO rows VALUES ($1)", value_of["row"])
    await connection.execute("INSERT INTO rows VALUES ($1)", f"{value_of['compressible row']} " * 80)
    await connection.execute("INSERT INTO quarantine VALUES ($1)", value_of["quarantine"].encode())
    await connection.close()
    for name, folder in folders.items():
        (folder / "control").write_text(value_of[name])


def _plant_in_kafka(kafka: KafkaServer, value_of: dict[str, str]) -> None:
    from event_contracts.topics import Topic

    kafka.create_topics([Topic(CONTROL_TOPIC, kafka.admin_user, "none", 1, 1, ())])
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": kafka.admin_user,
            "sasl.password": kafka.admin_password,
            "compression.type": "none",
        }
    )
    producer.produce(
        CONTROL_TOPIC,
        key=value_of["kafka key"],
        value=value_of["kafka value"],
        headers={"control": value_of["kafka header"]},
    )
    if producer.flush(30):
        raise RuntimeError("Kafka did not take the control record within 30 s; look at its log.")
