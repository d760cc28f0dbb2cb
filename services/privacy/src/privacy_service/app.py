"""The privacy service: what it reads, serves and holds. The vault is a service of its own, in `vault/`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from event_contracts.privacy import (
    CountHoldings,
    DescribeHoldings,
    EraseHoldings,
    ExportHoldings,
    FindExpired,
    RectifyDelivery,
    RectifyHoldings,
    TellRecipients,
)
from event_contracts.topics import PARTICIPANTS, TOPICS, system_replies
from evidence_log import http as evidence_http
from evidence_log.operators import record_decision
from evidence_log.sequencer import JOBS as EVIDENCE_JOBS
from privacy_service import kek_routes
from privacy_service.export import http as export_http
from privacy_service.export.handlers import JOBS as EXPORT_JOBS
from privacy_service.export.holdings import EXPORT_PARTS, EXPORT_SUBJECTS
from privacy_service.inventory import http as inventory_http
from privacy_service.inventory.domain import event_topics
from privacy_service.inventory.handlers import read_headers, write_inventory
from privacy_service.inventory.holdings import INVENTORY, RECIPIENTS
from privacy_service.participants import participants
from privacy_service.probes import http as probes_http
from privacy_service.probes.holdings import PROBES
from privacy_service.replies import HANDLERS, apply_replies, read_reply
from privacy_service.requests import http as rights_http
from privacy_service.requests.holdings import HOLDINGS as RIGHTS_HOLDINGS
from privacy_service.retention import http as retention_http
from privacy_service.retention.holdings import KEY_LOOKS
from privacy_service.retention.worker import JOBS as RETENTION_JOBS
from privacy_service.sagas.jobs import JOBS as RIGHTS_JOBS
from privacy_service.settings import PrivacySettings
from servicekit import Consumes, Kit, Service
from servicekit.core.policy import Policy

OWN_EVENT_TOPICS: Final = tuple(sorted(topic.name for topic in TOPICS if topic.name.endswith(".events")))


def inventory_of(topics: tuple[str, ...]) -> list[Consumes]:
    """Headers of all event topics, nothing decoded: a third party's need no code here.

    Third parties have a reader of their own: their bad records stop nobody and are not all kept. Of our own services no
    record is dropped: that reader stops first.
    """
    own = Consumes(OWN_EVENT_TOPICS, reader="inventory", decode=read_headers, apply=write_inventory, ordered=False)
    others = tuple(sorted(set(topics) - set(OWN_EVENT_TOPICS)))
    third_parties = replace(own, topics=others, reader="inventory-third-parties", outside=True)
    return [own, third_parties] if others else [own]


def replies_of(systems: Sequence[str]) -> Consumes:
    """The replies of the participants, each on its own topic."""
    topics = tuple(map(system_replies, systems))
    return Consumes(
        topics,
        reader="answers",
        contracts=tuple(HANDLERS),
        decode=read_reply,
        apply=apply_replies,
        outside=True,
        repeats=True,
    )


def make_router(kit: Kit) -> APIRouter:
    router = APIRouter()
    router.include_router(inventory_http.make_router(kit))
    router.include_router(probes_http.make_router(kit))
    router.include_router(evidence_http.make_router(kit))
    router.include_router(rights_http.make_router(kit))
    router.include_router(export_http.make_router(kit))
    router.include_router(retention_http.make_router(kit))
    router.include_router(kek_routes.make_router(kit))
    return router


SERVICE: Final = Service(
    "privacy",
    migrations=Path(__file__).parent / "migrations",
    emits=[
        CountHoldings,
        DescribeHoldings,
        EraseHoldings,
        TellRecipients,
        ExportHoldings,
        RectifyHoldings,
        RectifyDelivery,
        FindExpired,
    ],
    consumes=[*inventory_of(OWN_EVENT_TOPICS), replies_of(PARTICIPANTS)],
    holdings=[INVENTORY, RECIPIENTS, PROBES, *RIGHTS_HOLDINGS, KEY_LOOKS, EXPORT_PARTS, EXPORT_SUBJECTS],
    jobs=[*EVIDENCE_JOBS, *RIGHTS_JOBS, *EXPORT_JOBS, *RETENTION_JOBS],
    router=make_router,
    settings=PrivacySettings,
    record_decision=record_decision,
    package="privacy-service",
)


def service_under(policy: Policy) -> Service:
    """The service with the topics of the policy, third parties' included."""
    return replace(SERVICE, consumes=[*inventory_of(event_topics(policy)), replies_of(participants(policy))])
