"""One person's answers that always fail hold up their own request and no other, on real Postgres."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts import Event
from event_contracts.privacy import PositionAction, PositionDecided, QuarantineAction, QuarantineDecided
from event_contracts.topics import system_replies
from evidence_log.operators import record_decision
from privacy_service.app import replies_of
from servicekit.db.postgres import Tx
from servicekit.kafka import batches
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.cloudevents import RawRecord, Received, RecordId, to_headers
from servicekit.kit import Kit
from tests.support.infra import postgres_server
from tests.support.positions import load_positions
from tests.support.rights import SYSTEMS, Shop, open_erasure, shop

__all__ = ["postgres_server", "shop"]


def records_of(shop: Shop, answers: Sequence[Event], ends: dict[str, int]) -> list[RawRecord]:
    """The answers as each system publishes them on its own topic."""
    records = []
    for answer in answers:
        system = str(getattr(answer, "system"))  # noqa: B009 - answers have one, events in general none
        headers = to_headers(answer, event_id=uuid4(), source=system, time=shop.clock.now())
        topic, key = system_replies(system), str(answer.partition_key).encode()
        offset = ends[topic] = ends.get(topic, -1) + 1
        records.append(RawRecord(topic, 0, offset, key, answer.model_dump_json().encode(), tuple(headers)))
    return records


async def step_of(shop: Shop, subject: UUID) -> str:
    step: str = await shop.kit.db.fetchval("SELECT step::text FROM rights_subjects WHERE subject_id = $1", subject)
    return step


@pytest.mark.attack("a participant answers about one person so that it always fails", expected="nobody else waits")
@pytest.mark.fault(30, "a thousand repeats of a question, each answered by three systems, one of which always fails")
async def test_a_thousand_failing_answers_about_one_person_delay_nobody_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_PAUSE", 0.0)
    stuck, healthy = uuid4(), uuid4()
    reader = replies_of(SYSTEMS)
    applies = reader.apply
    assert applies is not None

    async def fails(kit: Kit, tx: Tx, events: Sequence[Received[Any]], prepared: Mapping[RecordId, Any]) -> None:
        if any(each.event.subject_id == stuck and each.event.system == "account" for each in events):
            raise LookupError
        await applies(kit, tx, events, prepared)

    reader = replace(reader, apply=fails)
    applier, ends = Applier(shop.kit, reader), dict[str, int]()
    applier.next = await load_positions(shop.kit.db, reader.reader, [(topic, 0) for topic in reader.topics])
    async with shop.client() as client:
        for subject in (stuck, healthy):
            await open_erasure(shop, client, subject)
    await shop.work()
    asked = await shop.asked()
    about = {who: [c for c in asked if getattr(c, "subject_id") == who] for who in (stuck, healthy)}  # noqa: B009
    before = await step_of(shop, healthy)
    for _ in range(4):
        repeats = [answer for command in about[stuck] for _ in range(100) for answer in shop.answers(command)]
        batch = Batch(records_of(shop, repeats, ends))
        await applier.apply(batch, applier.prepare(batch))
    batch = Batch(records_of(shop, [a for command in about[healthy] for a in shop.answers(command)], ends))
    await applier.apply(batch, applier.prepare(batch))
    rows = await shop.kit.db.fetch("SELECT topic FROM kit.quarantine WHERE ended_at IS NULL")
    assert [row["topic"] for row in rows] == ["account.replies"]
    assert await step_of(shop, healthy) != before
    assert await step_of(shop, stuck) == before


async def test_what_an_operator_decides_about_quarantine_is_one_leaf_of_the_log(shop: Shop) -> None:
    """Another system says it on its own topic; said twice it is the same leaf."""
    reader = replies_of(SYSTEMS)
    applier = Applier(shop.kit, reader)
    applier.next = await load_positions(shop.kit.db, reader.reader, [(topic, 0) for topic in reader.topics])
    decided = QuarantineDecided(
        decision_id=uuid4(),
        system="order",
        reader="shipments",
        action=QuarantineAction.DISCARDED,
        count=1,
        number=17,
        reason="sent_again",
        operator="jane.operator",
    )
    batch = Batch(records_of(shop, [decided, decided], {}))
    await applier.apply(batch, applier.prepare(batch))
    (row,) = await shop.kit.db.fetch("SELECT body FROM evidence_leaves WHERE kind = 'quarantine'")
    leaf = json.loads(row["body"])
    said = (leaf["system"], leaf["reader"], leaf["action"], leaf["number"], leaf["reason"], leaf["operator"])
    assert said == ("order", "shipments", "discarded", 17, "sent_again", "jane.operator")


async def test_what_an_operator_decides_about_a_position_is_one_leaf_of_the_log(shop: Shop) -> None:
    """Another system says it on its own topic, and this service writes its own; said twice it is the same leaf."""
    reader = replies_of(SYSTEMS)
    applier = Applier(shop.kit, reader)
    applier.next = await load_positions(shop.kit.db, reader.reader, [(topic, 0) for topic in reader.topics])
    decided = PositionDecided(
        decision_id=uuid4(),
        system="order",
        reader="participant",
        at_topic="privacy.commands",
        partition=3,
        action=PositionAction.SKIP,
        since=6,
        onto=7,
        reason="sent_again",
        operator="jane.operator",
    )
    batch = Batch(records_of(shop, [decided, decided], {}))
    await applier.apply(batch, applier.prepare(batch))
    ours = decided.model_copy(update={"decision_id": uuid4(), "system": "privacy"})
    await shop.kit.run_tx("decide", lambda tx: record_decision(shop.kit, tx, ours))
    rows = await shop.kit.db.fetch("SELECT body FROM evidence_leaves WHERE kind = 'position'")
    leaves = sorted((json.loads(row["body"]) for row in rows), key=lambda leaf: leaf["system"])
    assert [leaf["system"] for leaf in leaves] == ["order", "privacy"]
    for leaf in leaves:
        assert (leaf["reader"], leaf["topic"], leaf["partition"]) == ("participant", "privacy.commands", 3)
        said = (leaf["action"], leaf["since"], leaf["onto"], leaf["reason"], leaf["operator"])
        assert said == ("skip", 6, 7, "sent_again", "jane.operator")
