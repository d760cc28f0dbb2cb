"""The settings of the broker, for the one that we start ourselves and for the one in a container."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from deploy.local.kafka_admin import MAX_MESSAGE_BYTES

ADMIN_USER = "admin"

SECURITY: Mapping[str, str] = {
    "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
    "sasl.mechanism.controller.protocol": "PLAIN",
    "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:{ADMIN_USER};User:controller",
    "allow.everyone.if.no.acl.found": "false",
    "auto.create.topics.enable": "false",
}

SINGLE_NODE: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "compression.type": "uncompressed",  # a search of its files finds what was sent, and a small record stays small when read
    "message.max.bytes": str(MAX_MESSAGE_BYTES),
    "max.decompressed.message.bytes": str(
        MAX_MESSAGE_BYTES
    ),  # of one record; docs/operator.md says what it leaves open
    # Index files are preallocated: 10 MB each for every partition would be most of the disk that a small stack takes.
    "log.index.size.max.bytes": "262144",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # After kill -9 the broker's old session must run out before it may register again: 6 s in all instead of 12.
    # A shorter one runs out while a busy machine has no turn for the broker.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
}


def server_properties(admin_password: str, listen: str, advertise: str, controller: str, data_dir: Path) -> str:
    """The text of `server.properties`. `listen`, `advertise` (to clients) and `controller` are `host:port`."""
    controller_password = secrets.token_hex(16)
    scram = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMIN_USER}"'
    plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="controller"'
    settings = {
        **SINGLE_NODE,
        **SECURITY,
        "listeners": f"CLIENT://{listen},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{advertise}",
        "controller.quorum.voters": f"1@{controller}",
        "log.dirs": str(data_dir),
        "listener.name.client.scram-sha-512.sasl.jaas.config": f'{scram} password="{admin_password}";',
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{plain} password="{controller_password}" user_controller="{controller_password}";'
        ),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def add_admin(password: str) -> tuple[str, str]:
    """The arguments of `StorageTool format` that create the super user."""
    return "--add-scram", f"SCRAM-SHA-512=[name={ADMIN_USER},password={password}]"


def cluster_id() -> str:
    """A new random id for `StorageTool format`."""
    # 16 random bytes in base64url, as Kafka wants it; the first letter is fixed, since a "-" there would read as an
    # option.
    return "K" + secrets.token_urlsafe(16)[1:]
