"""The policies that sagas follow. Each is kept under its digest, so that one that is no longer in force can still be read."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from uuid import uuid4

from event_contracts.account import ACCOUNT_EVENTS
from event_contracts.logistics_gateway import SHIPMENT_EVENTS
from event_contracts.order import ORDER_EVENTS
from privacy_service.participants import participants, systems_holding
from privacy_service.sagas import store
from privacy_service.sagas.machine import ACCOUNT_CLASSES, Rules, State
from privacy_service.settings import PrivacySettings, settings_of
from servicekit import Kit, Tx
from servicekit.core.policy import Policy
from servicekit.db.postgres import Database

# The policy of sagas that began before policies were kept: they follow the one in force.
UNKNOWN: Final = ""
# A digest names one content for ever, so one memory serves the process.
_KNOWN: Final[dict[str, Policy]] = {}
_RULES: Final[dict[tuple[str, float, float, float], Rules]] = {}


async def keep(tx: Tx, policy: Policy) -> None:
    """Save the policy, before a saga is saved that follows it."""
    if not await store.knows_policy(tx, policy.digest):
        await store.write_policy(tx, policy.digest, policy.version, policy.model_dump_json())


async def rules_by_policy(kit: Kit, db: Database | Tx, states: Iterable[State]) -> dict[str, Rules]:
    """The rules of the policy in force and of those that these follow, by the policy's digest."""
    current = rules_of(kit, kit.policy)
    rules = {UNKNOWN: current, kit.policy.digest: current}
    others = {state.policy for state in states} - rules.keys()
    unread = [digest for digest in others if digest not in _KNOWN]
    if unread:
        for digest, document in await store.read_policies(db, unread):
            _KNOWN[digest] = Policy.model_validate_json(document)
    return rules | {digest: rules_of(kit, _KNOWN[digest]) for digest in others}


def rules_of(kit: Kit, policy: Policy) -> Rules:
    """What a policy and the settings say to the sagas. A process makes the rules of a policy once."""
    settings = settings_of(kit)
    key = policy.digest, settings.erasure_wait_seconds, settings.command_retry_seconds, settings.hold_check_seconds
    if key not in _RULES:
        _RULES[key] = _rules_of(policy, settings)
    return _RULES[key]


def _rules_of(policy: Policy, settings: PrivacySettings) -> Rules:
    return Rules(
        participants=frozenset(participants(policy)),
        systems_holding={name: frozenset(systems_holding(policy, name)) for name in policy.classes},
        disclosers=_owner(policy, SHIPMENT_EVENTS),
        rectifiers={
            **dict.fromkeys(ACCOUNT_CLASSES, _owner(policy, ACCOUNT_EVENTS)),
            "delivery": _owner(policy, ORDER_EVENTS),
        },
        duties={
            name: timedelta(days=rule.retention.days)
            for name, rule in policy.classes.items()
            if rule.retention.obligation
        },
        erasure_wait=timedelta(seconds=settings.erasure_wait_seconds),
        command_retry=timedelta(seconds=settings.command_retry_seconds),
        hold_check=timedelta(seconds=settings.hold_check_seconds),
        new_id=uuid4,
        owners={name: owner for name in policy.classes if (owner := policy.owner(name)) is not None},
        longest_open={
            name: timedelta(days=rule.longest_open_days)
            for name, rule in policy.classes.items()
            if rule.longest_open_days is not None
        },
    )


def _owner(policy: Policy, topic: str) -> frozenset[str]:
    """The system that publishes the topic, and so knows what its events are about."""
    return frozenset([policy.topics[topic].owner]) if topic in policy.topics else frozenset()
