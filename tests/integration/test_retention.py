"""Retention runs on real Postgres: what is past its time goes, once, and nothing else (S6, S7, law L8)."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from privacy_service.retention.worker import carry_retention
from servicekit.core import faults
from servicekit.core.errors import KitError
from servicekit.core.faults import Fault, InjectedFault
from tests.support.infra import postgres_server
from tests.support.retentions import Retention, retention
from tests.support.rights import Shop, shop

__all__ = ["postgres_server", "retention", "shop"]


async def test_what_is_past_its_time_goes_and_the_rest_stays(shop: Shop, retention: Retention) -> None:
    """Rules × anchors: deliveries half a year after the end of the order, payments thirteen months."""
    subject, other, now = uuid4(), uuid4(), shop.clock.now()
    _, old = retention.expire("order", "delivery", subject, now - timedelta(days=181))
    _, fresh = retention.expire("order", "delivery", subject, now - timedelta(days=179))
    _, payment = retention.expire("order", "payment", subject, now - timedelta(days=181))
    _, theirs = retention.expire("account", "behaviour", other, now - timedelta(days=91))
    name = shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        await retention.settle()
        run_id = str(await shop.kit.db.fetchval("SELECT run_id FROM retention_runs"))
        assert await retention.counts(client, run_id) == {"delivery": (1, 0, 0, 1), "behaviour": (1, 0, 0, 1)}
    assert {key: shop.vault.states.get(key) for key in (old, fresh, payment, theirs, name)} == {
        old: "destroyed",
        fresh: None,
        payment: None,
        theirs: "destroyed",
        name: None,
    }
    assert await shop.kit.db.fetchval("SELECT count(*) FROM certificates") == 2
    for table in ("retention_found", "retention_suspects", "retention_questions"):
        assert await shop.kit.db.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_it_happens_every_day_by_itself(shop: Shop, retention: Retention) -> None:
    subject, closed = uuid4(), shop.clock.now()
    _, key = retention.expire("order", "delivery", subject, closed)
    for _ in range(3):
        await retention.settle()
    assert await shop.kit.db.fetchval("SELECT count(*) FROM retention_runs") == 1
    await shop.tick(hours=25)
    await retention.settle()
    assert (await shop.kit.db.fetchval("SELECT count(*) FROM retention_runs"), await retention.requests()) == (2, 0)
    await shop.tick(days=180)
    await retention.settle()
    assert shop.vault.states == {key: "destroyed"}


async def test_a_dry_run_counts_and_touches_nothing(shop: Shop, retention: Retention) -> None:
    now = shop.clock.now()
    await retention.settle()
    for _ in range(3):
        retention.expire("order", "delivery", uuid4(), now - timedelta(days=200))
    retention.has_key(uuid4(), "payment", now - timedelta(days=2))
    async with shop.client() as client:
        run_id = await retention.start(client, dry_run=True)
        await retention.settle()
        assert await retention.counts(client, run_id) == {"delivery": (3, 0, 0, 0), "payment": (1, 0, 0, 0)}
        assert (await retention.requests(), shop.vault.calls) == (0, [])
        again = await retention.start(client)  # also the keys: a dry run leaves them for the next one
        await retention.settle()
        assert await retention.counts(client, again) == {"delivery": (3, 0, 0, 3), "payment": (1, 0, 0, 1)}


@pytest.mark.fault(16, "retention during a hold and an open order")
async def test_held_data_and_what_is_under_way_are_skipped(shop: Shop, retention: Retention) -> None:
    """L8: a hold has its owner; when it is lifted the next run takes what it kept."""
    subject, now = uuid4(), shop.clock.now()
    await shop.knows(subject)
    await retention.settle()
    anchor, held = retention.expire("order", "delivery", subject, now - timedelta(days=200))
    _, free = retention.expire("order", "delivery", subject, now - timedelta(days=200))
    hold = {"subject_id": str(subject), "data_class": "delivery", "anchor": str(anchor), "basis": "dispute"}
    officer = shop.staff("privacy_officer")
    async with shop.client() as client:
        put = await client.post("/v1/holds", json={**hold, "until": None}, headers=officer)
        assert put.status_code == 201, put.text
        run_id = await retention.start(client)
        await retention.settle()
        assert await retention.counts(client, run_id) == {"delivery": (2, 1, 0, 1)}
        assert shop.vault.states == {free: "destroyed"}
        assert (await client.delete(f"/v1/holds/{put.json()['hold_id']}", headers=officer)).status_code == 204
        shop.silent = {"order"}  # so that the saga cannot end
        first, second = await retention.start(client), await retention.start(client)
        await carry_retention(shop.kit)
        commands = await shop.asked()
        await shop.hear(*(answer for each in commands for answer in _all(retention, shop, each)))
        await retention.settle()
        found = [await retention.counts(client, first), await retention.counts(client, second)]
        assert sorted(each["delivery"] for each in found) == [(1, 0, 0, 1), (1, 0, 1, 0)]
        assert await retention.requests() == 2
        shop.silent = set()
        await shop.tick(seconds=60)
        await retention.settle()
    assert shop.vault.states == {free: "destroyed", held: "destroyed"}


def _all(retention: Retention, shop: Shop, command: object) -> list[object]:
    """What everybody answers, also who is silent."""
    silent, shop.silent = shop.silent, set()
    try:
        return list(retention.answers(command))  # type: ignore[arg-type]
    finally:
        shop.silent = silent


async def test_pages_of_several_systems_are_read_to_the_end(shop: Shop, retention: Retention) -> None:
    """L12: a system answers a page at a time, also where many anchors closed in one moment."""
    retention.page = 3
    moment = shop.clock.now() - timedelta(days=200)
    keys = {retention.expire("order", "delivery", uuid4(), moment)[1] for _ in range(8)}
    later = moment + timedelta(seconds=1)
    for _ in range(7):  # not the owner: it moves the pages and nothing else
        retention.expire("logistics-gateway", "delivery", uuid4(), later)
    keys |= {retention.expire("order", "delivery", uuid4(), later)[1] for _ in range(7)}
    await retention.settle()
    assert {key for key, state in shop.vault.states.items() if state == "destroyed"} == keys
    assert await retention.requests() == 15


@pytest.mark.fault(37, "a participant says that data of another system is past its time")
@pytest.mark.attack("have another system's data erased as expired", expected="no effect, counted")
async def test_a_system_cannot_have_data_erased_that_it_does_not_hold(shop: Shop, retention: Retention) -> None:
    long_ago = shop.clock.now() - timedelta(days=4000)
    _, record = retention.expire("logistics-gateway", "order_record", uuid4(), long_ago)
    _, behaviour = retention.expire("order", "behaviour", uuid4(), long_ago)
    _, own = retention.expire("account", "behaviour", uuid4(), long_ago)
    await retention.settle()
    gone = {key for key in (record, behaviour, own) if shop.vault.states.get(key) == "destroyed"}
    assert gone == {own}, "a system had data erased that the policy does not give it"


@pytest.mark.fault(37, "a holder that is not the owner says that an anchor closed long ago")
@pytest.mark.attack("have a delivery erased before its term as a mere holder", expected="no effect")
async def test_only_the_owner_of_a_class_says_when_an_anchor_closed(shop: Shop, retention: Retention) -> None:
    long_ago = shop.clock.now() - timedelta(days=4000)
    retention.expire("logistics-gateway", "delivery", uuid4(), long_ago)
    _, own = retention.expire("order", "delivery", uuid4(), long_ago)
    await retention.settle()
    assert shop.vault.states == {own: "destroyed"}


async def test_one_person_with_very_much_gets_several_requests(
    shop: Shop, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy_service.retention.handlers.NAMES_A_REQUEST", 2)
    subject, closed = uuid4(), shop.clock.now() - timedelta(days=200)
    keys = {retention.expire("order", "delivery", subject, closed)[1] for _ in range(5)}
    await retention.settle()
    assert await retention.requests() == 3
    assert shop.vault.states == dict.fromkeys(keys, "destroyed")


@pytest.mark.fault(19, "a participant is silent")
async def test_a_silent_system_is_named_and_asked_again(shop: Shop, retention: Retention) -> None:
    """L5: it holds up what it alone may have, and nothing else."""
    old = shop.clock.now() - timedelta(days=200)
    _, key = retention.expire("order", "delivery", uuid4(), old)
    _, theirs = retention.expire("account", "behaviour", uuid4(), old)
    shop.silent = {"account"}
    await retention.settle()
    async with shop.client() as client:
        run_id = str(await shop.kit.db.fetchval("SELECT run_id FROM retention_runs"))
        state = await retention.show(client, run_id)
        assert (state["ended_at"], state["items"]) == (None, [])
        (waiting,) = state["waiting_for"]
        assert waiting == {
            "system": "account",
            "since": "2026-11-24T00:00:00Z",
            "next_try_at": "2026-11-24T00:00:01Z",
        }
        await shop.tick(seconds=1)
        await retention.settle()
        state = await retention.show(client, run_id)
        assert (state["ended_at"], [each["system"] for each in state["waiting_for"]]) == (None, ["account"])
        assert [(each["data_class"], each["opened"]) for each in state["items"]] == [("delivery", 1)]
        assert shop.vault.states == {key: "destroyed"}
        shop.silent = set()
        await shop.tick(seconds=8)
        await retention.settle()
        assert await retention.counts(client, run_id) == {"delivery": (1, 0, 0, 1), "behaviour": (1, 0, 0, 1)}
    assert shop.vault.states == {key: "destroyed", theirs: "destroyed"}


@pytest.mark.fault(19, "a participant is silent for days")
async def test_a_run_that_somebody_never_answers_ends_with_their_name_when_the_next_begins(
    shop: Shop, retention: Retention
) -> None:
    """L5, L12: also a key that no event has named is looked at again, and goes once all have answered."""
    _, key = retention.expire("account", "behaviour", uuid4(), shop.clock.now() - timedelta(days=200))
    unnamed = retention.has_key(uuid4(), "payment", shop.clock.now() - timedelta(days=2)).key_id
    shop.silent = {"account"}
    await retention.settle()
    first = str(await shop.kit.db.fetchval("SELECT run_id FROM retention_runs"))
    await shop.tick(hours=25)
    await retention.settle()
    async with shop.client() as client:
        state = await retention.show(client, first)
        assert (state["ended_at"] is None, state["unanswered"], state["waiting_for"]) == (False, ["account"], [])
        under_way = "SELECT count(*) FROM retention_runs WHERE ended_at IS NULL AND NOT only_looks"
        assert await shop.kit.db.fetchval(under_way) == 1
        assert shop.vault.states == {}
        shop.silent = set()
        await shop.tick(seconds=8)
        await retention.settle()
        answered = "SELECT run_id FROM retention_runs WHERE unanswered = '{}' AND only_looks = $1"
        for only_looks, data_class in ((False, "behaviour"), (True, "payment")):
            run_id = str(await shop.kit.db.fetchval(answered, only_looks))
            assert await retention.counts(client, run_id) == {data_class: (1, 0, 0, 1)}
    assert shop.vault.states == {key: "destroyed", unnamed: "destroyed"}


async def test_keys_that_no_event_named_and_nobody_holds_are_destroyed(shop: Shop, retention: Retention) -> None:
    """An order that was never placed, a registration that never committed: docs/protocols.md#keys."""
    now, abandoned, known, holder = shop.clock.now(), uuid4(), uuid4(), uuid4()
    old = now - timedelta(hours=25)
    gone = [retention.has_key(abandoned, each, old).key_id for each in ("delivery", "order_record")]
    young = retention.has_key(uuid4(), "delivery", now - timedelta(hours=23))
    named = retention.has_key(known, "delivery", old)
    await retention.names(known, named.anchor)
    # The inventory is behind, but the order service has the row.
    held = retention.has_key(holder, "payment", old)
    shop.holds(holder, "order", "payment", held.anchor)
    await retention.settle()
    assert shop.vault.states == dict.fromkeys(gone, "destroyed")
    retention.looked_at.clear()
    await shop.tick(hours=25)
    await retention.settle()
    assert retention.looked_at == [young.key_id]  # each key is looked at once, when it has come of age
    assert shop.vault.states == dict.fromkeys([*gone, young.key_id], "destroyed")


async def test_keys_of_quarantine_and_of_exports_that_are_over_go(shop: Shop, retention: Retention) -> None:
    service, now = uuid4(), shop.clock.now()
    old = retention.has_key(service, "quarantine", now - timedelta(days=16))
    young = retention.has_key(service, "quarantine", now - timedelta(days=14))
    late = retention.has_key(uuid4(), "export", now - timedelta(days=2))
    under_way = retention.has_key(uuid4(), "export", now - timedelta(days=2))
    await shop.sql(
        """INSERT INTO rights_exports (request_id, kind, begun_at, revocation_id)
           VALUES ($1, 'access', now(), $1)""",
        under_way.anchor,
    )
    await retention.settle()
    assert shop.vault.states == {old.key_id: "destroyed", late.key_id: "destroyed"}
    await shop.tick(days=2)
    await retention.settle()
    assert shop.vault.states[young.key_id] == "destroyed"
    assert under_way.key_id not in shop.vault.states


async def test_what_nobody_uses_goes_as_well(shop: Shop, retention: Retention) -> None:
    """S7: abandoned registrations and unused addresses."""
    subject, now = uuid4(), shop.clock.now()
    _, address = retention.expire("account", "contact", subject, now - timedelta(days=731), unused=True)
    _, used = retention.expire("account", "contact", subject, now - timedelta(days=729), unused=True)
    await retention.settle()
    assert shop.vault.states == {address: "destroyed"}
    assert used not in shop.vault.states


@pytest.mark.fault(17, "a retention run is cut at any point")
@pytest.mark.parametrize(
    "point", ["retention.keys_read", "retention.gave_up", "rights.answered", "tx.commit", "tx.committed"]
)
@pytest.mark.parametrize("hit", [1, 4])
async def test_a_run_may_be_cut_at_any_point(shop: Shop, retention: Retention, point: str, hit: int) -> None:
    """Each name is given up in one request, however often a worker or a reader dies."""
    old = shop.clock.now() - timedelta(days=800)
    keys = {retention.expire("order", "delivery", uuid4(), old)[1] for _ in range(2)}
    keys.add(retention.has_key(uuid4(), "payment", old).key_id)
    faults.arm({point: Fault("error", 0, hit)})
    try:
        for _ in range(30):
            await shop.tick(seconds=10)
            try:
                await carry_retention(shop.kit)
                await shop.work()
                commands = await shop.asked()
            except (InjectedFault, KitError):
                continue
            replies = [answer for command in commands for answer in retention.answers(command)]
            await shop._hear_in_the_end(replies)
    finally:
        faults.arm({})
    await retention.settle()
    assert shop.vault.states == dict.fromkeys(keys, "destroyed")
    assert await retention.requests() == 3


@pytest.mark.fault(25, "four retention workers at once")
async def test_many_workers_at_once_have_one_effect(shop: Shop, retention: Retention) -> None:
    old = shop.clock.now() - timedelta(days=800)
    keys = {retention.expire("order", "delivery", uuid4(), old)[1] for _ in range(5)}
    keys |= {retention.has_key(uuid4(), "payment", old).key_id for _ in range(5)}
    for _ in range(6):
        await asyncio.gather(*(carry_retention(shop.kit) for _ in range(4)))
        commands = await shop.asked()
        await shop.hear(*(answer for command in commands for answer in retention.answers(command)))
    await retention.settle()
    assert await shop.kit.db.fetchval("SELECT count(*) FROM retention_runs") == 1
    assert await retention.requests() == 10
    assert shop.vault.states == dict.fromkeys(keys, "destroyed")


async def test_only_the_privacy_officer_starts_a_run(shop: Shop, retention: Retention) -> None:
    path = "/v1/retention/runs"
    officer = {**shop.staff("privacy_officer"), "Idempotency-Key": str(uuid4())}
    async with shop.client() as client:
        assert (await client.post(path, json={}, headers=shop.staff("support"))).status_code == 403
        assert (await client.post(path, json={})).status_code == 401
        assert (await client.post(path, json={"dryrun": True}, headers=officer)).status_code == 422
        started = [await client.post(path, json={"dry_run": True}, headers=officer) for _ in range(2)]
        assert [each.status_code for each in started] == [202, 202]
        assert len({each.json()["run_id"] for each in started}) == 1
        reused = await client.post(path, json={"dry_run": False}, headers=officer)
        assert (reused.status_code, reused.json()["type"]) == (422, "/problems/key_reused")
        assert (await client.get(f"{path}/{uuid4()}", headers=officer)).status_code == 404
    decisions = await shop.kit.db.fetchval("SELECT count(*) FROM evidence_leaves WHERE body LIKE '%retention_dry_run%'")
    assert (decisions, await shop.kit.db.fetchval("SELECT count(*) FROM retention_runs")) == (1, 1)


@pytest.mark.fault(6, "answers that come twice, late or unasked")
async def test_answers_that_were_not_asked_for_change_nothing(shop: Shop, retention: Retention) -> None:
    """A page that comes twice or late, of another class, or not past the time that was asked for."""
    _, key = retention.expire("order", "delivery", uuid4(), shop.clock.now() - timedelta(days=200))
    await carry_retention(shop.kit)
    commands = await shop.asked()
    answers = [answer for command in commands for answer in retention.answers(command)]
    young = retention.expire("order", "delivery", uuid4(), shop.clock.now())[0]
    lies = []
    for answer in answers:
        if getattr(answer, "data_class", "") == "delivery" and getattr(answer, "system", "") == "account":
            (item,) = [i for i in retention.expired["order", "delivery", False] if i.anchor == young]
            lies.append(answer.model_copy(update={"items": (item,)}))
            lies.append(answer.model_copy(update={"request_id": UUID(int=1)}))
    await shop.hear(*lies, *answers, *answers)
    await retention.settle()
    await shop.hear(*answers)
    await retention.settle()
    assert shop.vault.states == {key: "destroyed"}
    assert await retention.requests() == 1
