"""Topics as data: from this list topics *and* their ACLs are created. Third parties add theirs as JSON of the same shape."""

import json
from dataclasses import dataclass
from pathlib import Path

from event_contracts.account import ACCOUNT_EVENTS, BROWSING_EVENTS
from event_contracts.carrier import replies_topic, shipments_topic
from event_contracts.logistics_gateway import SHIPMENT_EVENTS
from event_contracts.order import ORDER_EVENTS
from event_contracts.privacy import PRIVACY_COMMANDS, REPLIES

REVOCATIONS = "vault.revocations"
CARRIERS = ("meridian", "pacifica")

_DAY = 24
_YEAR = 365 * _DAY


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and who may touch it.

    `owner` alone writes, `consumers` alone read, in groups whose names begin with their own name and a dot.
    `key` names what the record key is; `retention_hours` is None for a topic that is kept for ever.
    """

    name: str
    owner: str
    key: str
    partitions: int
    retention_hours: int | None
    consumers: tuple[str, ...]


def system_replies(system: str) -> str:
    """The topic on which one system alone answers `privacy.commands`: the ACL is the signature."""
    return REPLIES.replace("*", system)


def participant_topic(system: str) -> Topic:
    return Topic(system_replies(system), system, "request_id", 1, 30 * _DAY, ("privacy",))


PARTICIPANTS = ("account", "order", "logistics-gateway")

TOPICS: tuple[Topic, ...] = (
    Topic(ACCOUNT_EVENTS, "account", "subject_id", 6, _YEAR, ("privacy",)),
    Topic(BROWSING_EVENTS, "account", "subject_id", 6, 90 * _DAY, ("privacy",)),
    Topic(ORDER_EVENTS, "order", "order_id", 6, _YEAR, ("account", "logistics-gateway", "privacy")),
    Topic(SHIPMENT_EVENTS, "logistics-gateway", "order_id", 6, _YEAR, ("order", "privacy")),
    Topic(PRIVACY_COMMANDS, "privacy", "request_id", 1, 30 * _DAY, PARTICIPANTS),
    Topic(REVOCATIONS, "vault", "subject", 1, None, ("privacy", *PARTICIPANTS)),
    *(participant_topic(system) for system in PARTICIPANTS),
    *(Topic(shipments_topic(c), "logistics-gateway", "consignee", 3, 72, (c,)) for c in CARRIERS),
    *(Topic(replies_topic(c), c, "shipment_id", 3, 72, ("logistics-gateway",)) for c in CARRIERS),
)


def load_topics(path: Path) -> tuple[Topic, ...]:
    """A third party's topics: a JSON list of objects with the fields of `Topic`."""
    return tuple(Topic(**{**entry, "consumers": tuple(entry["consumers"])}) for entry in json.loads(path.read_text()))
