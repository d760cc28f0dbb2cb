"""Whose answers count, a policy that changes in the middle, and one request that fails, on real Postgres."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copy
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.interfaces import PostgresServer
from event_contracts.privacy import DescribeHoldings, RecipientsTold, TellRecipients, ToldRecipient
from event_contracts.topics import system_replies
from privacy_service import vault_revocations
from privacy_service.app import SERVICE
from privacy_service.sagas import jobs, policies
from privacy_service.vault_revocations import DOUBTS, Revocation, Revoked
from servicekit.core.errors import Doubtful, Invalid, Unavailable
from servicekit.core.metrics import ANSWERS_OUT_OF_SCOPE
from servicekit.core.policy import Policy
from servicekit.db.migrate import KIT_MIGRATIONS, migrate
from servicekit.db.postgres import Tx
from servicekit.kit import Kit
from tests.support.exports import link, make_ready, open_access
from tests.support.infra import postgres_server
from tests.support.rights import POLICY, Shop, approve, open_erasure, shop, show

__all__ = ["postgres_server", "shop"]


def next_policy() -> Policy:
    """One more system must answer, and records of orders are a year longer a duty to keep."""
    document = POLICY.model_dump(mode="json")
    document["version"] = "2099-01-01"
    document["systems"]["reviews"] = {"title": "Reviews", "holds": ["identity", "order_record"]}
    document["topics"][system_replies("reviews")] = {"owner": "reviews", "keep": "P30D"}
    document["classes"]["order_record"]["retention"]["keep"] = "P11Y"
    return Policy.model_validate(document)


@pytest.mark.fault(22, "the policy changes while an erasure is under way")
async def test_a_saga_stays_on_the_policy_under_which_its_round_began(shop: Shop) -> None:
    subject, order = uuid4(), uuid4()
    shop.holds(subject, "account", "identity", subject)
    closed = shop.clock.now()
    shop.holds(subject, "order", "order_record", order, closed_at=closed)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
    # The next version of the service takes over, which has never heard of the old policy.
    policies._KNOWN.clear()
    shop.kit = replace(shop.kit, policy=next_policy())
    async with shop.client() as client:
        await shop.settle()
        state = await show(shop, client, request_id)
        assert (state["status"], [step["waiting_for"] for step in state["steps"]]) == ("completed", [[]])
        (hold,) = state["holds"]
        assert datetime.fromisoformat(hold["until"]) == closed + timedelta(days=3650)
        assert await versions(shop, request_id) == [POLICY.version]

        # Whatever begins now goes by the new one: another request, and the held one when it is looked at again.
        other = await open_erasure(shop, client, uuid4())
        await shop.tick(days=3651)
        await shop.settle()
        for each, step in ((other, "preview"), (request_id, "describe")):
            (at,) = (await show(shop, client, each))["steps"]
            assert (at["step"], [waiting["system"] for waiting in at["waiting_for"]]) == (step, ["reviews"])


async def versions(shop: Shop, request_id: str) -> list[str]:
    rows = await shop.kit.db.fetch("SELECT body FROM certificates WHERE request_id = $1", UUID(request_id))
    return [json.loads(row["body"])["policy_version"] for row in rows]


@pytest.mark.fault(37, "a participant lies about what others hold, and about open anchors")
@pytest.mark.attack("say as one system what another one holds", expected="no effect, counted")
async def test_what_a_system_says_of_data_that_is_not_its_own_changes_nothing(shop: Shop) -> None:
    """The gateway says that the person's name is in use, and that the order is still under way. Neither is its to say."""
    subject, order = uuid4(), uuid4()
    name = shop.holds(subject, "account", "identity", subject)
    delivery = shop.holds(subject, "order", "delivery", order, closed_at=shop.clock.now())
    shop.holds(subject, "logistics-gateway", "identity", subject, is_open=True)
    shop.holds(subject, "logistics-gateway", "delivery", order, is_open=True)
    before = ANSWERS_OUT_OF_SCOPE.labels("logistics-gateway", "described")._value.get()
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert (state["status"], state["holds"]) == ("completed", []), "a lie about another system's data is believed"
        assert shop.vault.states == {name: "destroyed", delivery: "destroyed"}
        assert ANSWERS_OUT_OF_SCOPE.labels("logistics-gateway", "described")._value.get() > before
        (told,) = [each for each in shop.sent if isinstance(each, TellRecipients)]
        line = ToldRecipient(recipient="meridian", shipments=1, told=1, answered=0, topic_clean_at=None)
        await shop.hear(
            RecipientsTold(request_id=told.request_id, subject_id=subject, system="account", recipients=(line,))
        )
        assert (await show(shop, client, request_id))["outstanding"] == []


async def test_an_answer_that_nobody_asked_for_or_that_is_old_changes_nothing(shop: Shop) -> None:
    subject = uuid4()
    shop.holds(subject, "account", "identity", subject)
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.work()
        (asked,) = await shop.asked()
        assert isinstance(asked, DescribeHoldings)
        answers = shop.answers(asked)
        await shop.hear(*(each.model_copy(update={"request_id": uuid4()}) for each in answers))
        await shop.hear(*(each.model_copy(update={"subject_id": uuid4()}) for each in answers))
        assert [step["step"] for step in (await show(shop, client, request_id))["steps"]] == ["preview"]
        await shop.hear(*answers)
        await approve(shop, client, request_id)
        await shop.hear(*answers)  # they are about the question before
        await shop.work()
        await shop.hear(*answers)
        assert [step["step"] for step in (await show(shop, client, request_id))["steps"]] == ["describe"]
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"


async def test_an_anchor_that_never_closes_holds_an_erasure_up_for_its_longest_time(shop: Shop) -> None:
    subject, order = uuid4(), uuid4()
    delivery = shop.holds(subject, "order", "delivery", order, is_open=True)
    record = shop.holds(subject, "order", "order_record", order, is_open=True)
    began = shop.clock.now()
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        held = (await show(shop, client, request_id))["holds"]
        opens = [hold for hold in held if hold["basis"] == "open_anchor"]
        assert {(hold["data_class"], hold["owner"]) for hold in opens} == {
            ("delivery", "order"),
            ("order_record", "order"),
        }
        assert {datetime.fromisoformat(hold["until"]) for hold in opens} == {began + timedelta(days=365)}
        await shop.tick(days=364)
        await shop.settle()
        assert shop.vault.states == {delivery: "held", record: "held"}
        await shop.tick(days=2)
        await shop.settle()
        assert shop.vault.states == {delivery: "destroyed", record: "held"}
        (kept,) = (await show(shop, client, request_id))["holds"]
        assert (kept["basis"], datetime.fromisoformat(kept["until"])) == (
            "legal_obligation",
            began + timedelta(days=365 + 3650),
        )
        await shop.tick(days=3650)
        await shop.settle()
        assert shop.vault.states == {delivery: "destroyed", record: "destroyed"}


async def test_a_revocation_that_the_vault_cannot_do_does_not_hold_up_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = uuid4(), uuid4()
    key = shop.holds(good, "account", "identity", good)
    shop.holds(bad, "account", "identity", bad)
    revoke = shop.vault.revoke

    async def refuses(kit: Kit, wanted: Sequence[Revocation]) -> list[Revoked]:
        if any(each.subject == bad for each in wanted):
            raise Invalid
        return await revoke(kit, wanted)

    async with shop.client() as client:
        ids = [await open_erasure(shop, client, subject) for subject in (bad, good)]
        await shop.settle()
        with monkeypatch.context() as broken:
            broken.setattr(vault_revocations, "revoke", refuses)
            for request_id in ids:
                await approve(shop, client, request_id)
            await shop.settle()
            states = [(await show(shop, client, request_id))["status"] for request_id in ids]
            assert states == ["running", "completed"], "one request's failure holds up another one"
            assert shop.vault.states == {key: "destroyed"}
        await shop.tick(seconds=10)
        await shop.settle()
        assert (await show(shop, client, ids[0]))["status"] == "completed"


async def test_a_revocation_for_which_the_vault_never_has_time_does_not_hold_up_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage blames nobody. After some tries, and while the vault answers others, each is asked for alone."""
    bad, good = uuid4(), uuid4()
    shop.holds(good, "account", "identity", good)
    shop.holds(bad, "account", "identity", bad)
    revoke, asked = shop.vault.revoke, []

    async def times_out(kit: Kit, wanted: Sequence[Revocation]) -> list[Revoked]:
        asked.append({each.subject for each in wanted})
        if any(each.subject == bad for each in wanted):
            raise Unavailable
        return await revoke(kit, wanted)

    async with shop.client() as client:
        ids = [await open_erasure(shop, client, subject) for subject in (bad, good)]
        await shop.settle()
        with monkeypatch.context() as broken:
            broken.setattr(vault_revocations, "revoke", times_out)
            for request_id in ids:
                await approve(shop, client, request_id)
            for _ in range(DOUBTS + 2):
                with suppress(Unavailable):
                    await shop.settle()
                await shop.tick(hours=1)
            states = [(await show(shop, client, request_id))["status"] for request_id in ids]
            assert states == ["running", "completed"], "one request's time-outs hold up another one"
            assert asked[:DOUBTS] == [{bad, good}] * DOUBTS, "blamed too early"
            (step,) = (await show(shop, client, ids[0]))["steps"]
            assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("fence", ["vault"])
        await shop.tick(days=1)
        await shop.settle()
        assert (await show(shop, client, ids[0]))["status"] == "completed"


@pytest.mark.parametrize("slow", [False, True], ids=["error", "time_out"])
async def test_a_package_that_fails_does_not_keep_others_from_being_ready(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """It is put off with its reason, this service is named as who has it, and it is tried again.

    Also when it is a statement that always times out while the database answers others.
    """
    ready = jobs.make_ready
    async with shop.client() as client:
        bad, good = [await open_access(shop, client, uuid4()) for _ in range(2)]

        async def fails(kit: Kit, tx: Tx, request_id: UUID) -> Any:
            if request_id == bad and slow:
                await tx.execute("SET LOCAL statement_timeout = '20ms'")
                await tx.execute("SELECT pg_sleep(60)")
            if request_id == bad:
                raise ZeroDivisionError
            return await ready(kit, tx, request_id)

        with monkeypatch.context() as broken:
            broken.setattr(jobs, "make_ready", fails)
            with suppress(ZeroDivisionError, Doubtful):
                await make_ready(shop, {})
            (step,) = (await show(shop, client, str(bad)))["steps"]
            assert (await show(shop, client, str(good)))["steps"][0]["step"] == "ready", (
                "a failing package stops others"
            )
            assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("package", ["privacy"])
            assert (await client.get(await link(shop, client, good))).status_code == 200
        await shop.settle()
        assert (await show(shop, client, str(bad)))["steps"][0]["step"] == "package"
        await shop.tick(seconds=10)
        await shop.settle()
        assert (await client.get(await link(shop, client, bad))).status_code == 200


@pytest.mark.fault(22, "a migration finds what an older version allowed")
async def test_two_open_requests_from_before_the_rule_of_one_are_migrated(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """They stay as they are. A process of the older version can still write its own."""
    _, owner_dsn = postgres_server.create_system_database(f"rights{uuid4().hex[:8]}")
    for file in SERVICE.migrations.glob("*.sql"):
        if file.name < "0016":
            copy(file, tmp_path)
    await migrate(owner_dsn, [KIT_MIGRATIONS, tmp_path])
    connection: Any = await asyncpg.connect(owner_dsn)
    try:
        insert = """INSERT INTO rights_requests (request_id, kind, status, opener_id, opener_role, opened_at, due_at, regime{})
            VALUES ($1, 'access', 'running', $2, 'customer', now(), now(), 'gdpr'{})"""
        customer = uuid4()
        for _ in range(2):
            await connection.execute(insert.format("", ""), uuid4(), customer)
        assert "service/0016_one_own_request" in await migrate(owner_dsn, [KIT_MIGRATIONS, SERVICE.migrations])
        await connection.execute(insert.format(", is_sole", ", true"), uuid4(), customer)
        assert await connection.fetchval("SELECT count(*) FROM rights_requests WHERE ended_at IS NULL") == 3
    finally:
        await connection.close()
