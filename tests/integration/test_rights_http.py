"""What people do to rights requests over HTTP, also at once, on real Postgres."""

# long: all of one service's routes on one Postgres, which costs more to start than a second file is worth

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from event_contracts.privacy import (
    DescribeHoldings,
    RecipientsTold,
    RectifyDelivery,
    RectifyHoldings,
    Refusal,
    ToldRecipient,
)
from tests.support.infra import postgres_server
from tests.support.rights import SYSTEMS, Shop, approve, certificates, open_erasure, shop, show

__all__ = ["postgres_server", "shop"]


@pytest.mark.fault(16, "an erasure during a hold")
@pytest.mark.fault(29, "staff state the end of a hold")
async def test_a_hold_set_by_hand_keeps_exactly_that_until_it_is_lifted(shop: Shop) -> None:
    subject, kept, other, key_of_hold = uuid4(), uuid4(), uuid4(), uuid4()
    key = shop.holds(subject, "account", "contact", kept)
    gone = shop.holds(subject, "account", "contact", other)
    await shop.knows(subject)
    body = {"subject_id": str(subject), "data_class": "contact", "anchor": str(kept), "basis": "dispute"}
    async with shop.client() as client:
        support = {**shop.staff(), "Idempotency-Key": str(key_of_hold)}
        for until in (
            "2020-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999+00:00",
            "0001-01-01T00:00:00+14:00",
            "2200-01-01",
        ):
            refused = await client.post("/v1/holds", json={**body, "until": until}, headers=support)
            assert refused.status_code == 422
        answers = [await client.post("/v1/holds", json=body, headers=support) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 200]
        (hold_id,) = {answer.json()["hold_id"] for answer in answers}
        changed = {**body, "basis": "litigation"}
        reused = await client.post("/v1/holds", json=changed, headers=support)
        assert (reused.status_code, reused.json()["type"]) == (422, "/problems/key_reused")
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        assert shop.vault.states == {key: "held", gone: "destroyed"}
        (hold,) = (await show(shop, client, request_id))["holds"]
        assert (hold["anchor"], hold["basis"]) == (str(kept), "dispute")
        assert (await client.delete(f"/v1/holds/{hold_id}", headers=shop.staff())).status_code == 204
        await shop.settle()
        assert (await show(shop, client, request_id))["holds"] == []
        assert (await client.delete(f"/v1/holds/{uuid4()}", headers=shop.staff())).status_code == 404
    assert shop.vault.states == {key: "destroyed", gone: "destroyed"}


async def test_no_certificate_is_issued_while_what_was_held_goes(shop: Shop) -> None:
    """A recipient's answer amends the certificate, but the hold is over and the key still there: it would say too much."""
    subject, kept = uuid4(), uuid4()
    key = shop.holds(subject, "account", "contact", kept)
    await shop.knows(subject)
    told = ToldRecipient(recipient="meridian", shipments=1, told=1, answered=0, topic_clean_at=None)
    shop.recipients = (told,)
    body = {"subject_id": str(subject), "data_class": "contact", "anchor": str(kept), "basis": "dispute"}
    async with shop.client() as client:
        hold_id = (await client.post("/v1/holds", json=body, headers=shop.staff())).json()["hold_id"]
        request_id = await open_erasure(shop, client, subject)
        await shop.settle()
        await approve(shop, client, request_id)
        await shop.settle()
        shop.left = {"account": 1}
        await client.delete(f"/v1/holds/{hold_id}", headers=shop.staff())
        await shop.settle()
        shop.recipients = (told.model_copy(update={"answered": 1}),)
        await shop.hear(
            RecipientsTold(
                request_id=UUID(request_id), subject_id=subject, system="logistics-gateway", recipients=shop.recipients
            )
        )
        await shop.settle()
        assert (shop.vault.states, await certificates(shop, request_id)) == ({key: "fenced"}, 1)
        shop.left = {}
        await shop.tick(seconds=1)
        await shop.settle()
        assert (shop.vault.states, (await show(shop, client, request_id))["holds"]) == ({key: "destroyed"}, [])
        assert await certificates(shop, request_id) > 1


@pytest.mark.fault(25, "two approvers at once")
async def test_two_approvers_at_once_have_one_effect(shop: Shop) -> None:
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, uuid4())
        await shop.settle()
        answers = await asyncio.gather(*(approve(shop, client, request_id) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
        history = (await show(shop, client, request_id))["history"]
        assert [line["what"] for line in history].count("approved") == 1
        describes = [c for c in await shop.asked() if isinstance(c, DescribeHoldings)]
        assert len(describes) == 1


async def test_of_many_approvals_at_once_each_has_its_own_answer(shop: Shop) -> None:
    async with shop.client() as client:
        wanted = [await open_erasure(shop, client, uuid4()) for _ in range(6)]
        await shop.settle()
        once, twice, *others = wanted
        answers = await asyncio.gather(
            *(approve(shop, client, request_id) for request_id in [once, twice, *others, twice, str(uuid4())]),
            client.post(f"/v1/requests/{once}/approve", headers=shop.staff("support")),
        )
        codes = [answer.status_code for answer in answers]
        assert codes == [200] * len(wanted) + [409, 404, 409]
        await shop.settle()
        assert [await certificates(shop, request_id) for request_id in wanted] == [1] * len(wanted)


@pytest.mark.fault(25, "approval against cancellation")
async def test_of_approval_and_cancellation_at_once_both_orders_are_consistent(shop: Shop) -> None:
    async with shop.client() as client:
        for _ in range(4):
            request_id = await open_erasure(shop, client, uuid4())
            await shop.settle()
            cancelled, approved = await asyncio.gather(
                client.post(f"/v1/requests/{request_id}/cancel", headers=shop.staff()),
                approve(shop, client, request_id),
            )
            assert cancelled.status_code == 200
            assert approved.status_code in (200, 409)
            await shop.settle()
            state = await show(shop, client, request_id)
            assert (state["status"], state["reason"], state["steps"][0]["step"]) == ("cancelled", "cancelled", "done")
    assert shop.vault.calls == []


async def test_nothing_can_be_cancelled_once_the_fence_is_up(shop: Shop) -> None:
    shop.silent = {"order"}
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, uuid4())
        await approve(shop, client, request_id)
        shop.silent = set()
        commands = [c for c in await shop.asked() if isinstance(c, DescribeHoldings)]
        await shop.hear(*shop.answers(commands[-1]))
        assert (await show(shop, client, request_id))["steps"][0]["step"] == "fence"
        cancelled = await client.post(f"/v1/requests/{request_id}/cancel", headers=shop.staff())
        denied = await client.post(
            f"/v1/requests/{request_id}/deny", json={"reason": "other"}, headers=shop.staff("privacy_officer")
        )
    assert (cancelled.status_code, denied.status_code) == (409, 409)


@pytest.mark.attack("one member of staff opens and approves an erasure", expected="403 or 409")
async def test_an_erasure_is_approved_by_another_person_of_another_role(shop: Shop) -> None:
    subject, opener = uuid4(), uuid4()
    body = {"kind": "erasure", "subject_ids": [str(subject)], "identity_check": "document"}
    await shop.knows(subject)
    async with shop.client() as client:
        opened = await client.post("/v1/requests", json=body, headers=shop.staff("support", opener))
        url = f"/v1/requests/{opened.json()['request_id']}/approve"
        assert (await client.post(url, headers=shop.staff("support"))).status_code == 403
        assert (await client.post(url, headers=shop.staff("privacy_officer", opener))).status_code == 403
        assert (await client.post(url, headers=shop.customer(subject))).status_code == 401
        assert (await client.post(url, headers=shop.staff("privacy_officer"))).status_code == 200


async def test_the_identity_comes_first_and_a_denial_has_a_reason(shop: Shop) -> None:
    subject = uuid4()
    await shop.knows(subject)
    body = {"kind": "erasure", "subject_ids": [str(subject)]}
    async with shop.client() as client:
        opened = (await client.post("/v1/requests", json=body, headers=shop.staff())).json()
        url = f"/v1/requests/{opened['request_id']}"
        assert (opened["status"], opened["due_at"]) == ("open", "2026-12-24T00:00:00Z")
        assert (await approve(shop, client, opened["request_id"])).status_code == 409
        confirmed = await client.post(f"{url}/identity", json={"check": "callback"}, headers=shop.staff())
        assert confirmed.json()["status"] == "awaiting_approval"
        refused = await client.post(f"{url}/deny", json={"reason": "fulfilled"}, headers=shop.staff())
        assert (refused.status_code, refused.json()["detail"]) == (422, "A denial has a reason of its own. Name one.")
        denied = await client.post(f"{url}/deny", json={"reason": "suspected_fraud"}, headers=shop.staff())
        assert (denied.json()["status"], denied.json()["reason"]) == ("denied", "suspected_fraud")
        assert (await approve(shop, client, opened["request_id"])).status_code == 409
        listed = await client.get("/v1/requests", params={"status": "denied"}, headers=shop.staff())
        assert [item["request_id"] for item in listed.json()["items"]] == [opened["request_id"]]


@pytest.mark.attack("a customer reads or cancels another person's request", expected="404")
async def test_a_customer_opens_sees_and_cancels_only_their_own(shop: Shop) -> None:
    me, other = uuid4(), uuid4()
    async with shop.client() as client:
        key = {"Idempotency-Key": str(uuid4())}
        body = {"kind": "erasure"}
        opened = await client.post("/v1/me/requests", json=body, headers={**shop.customer(me), **key})
        again = await client.post("/v1/me/requests", json=body, headers={**shop.customer(me), **key})
        stolen = await client.post("/v1/me/requests", json=body, headers={**shop.customer(other), **key})
        assert [each.status_code for each in (opened, again, stolen)] == [201, 200, 201]
        assert stolen.json()["subject_ids"] == [str(other)]
        assert opened.json()["status"] == "awaiting_approval"
        url = f"/v1/me/requests/{opened.json()['request_id']}"
        for path in ("", "/preview", "/certificate"):
            assert (await client.get(url + path, headers=shop.customer(other))).status_code == 404
        assert (await client.post(f"{url}/cancel", headers=shop.customer(other))).status_code == 404
        assert (await client.get(url, headers=shop.customer(me))).json()["subject_ids"] == [str(me)]
        preview = (await client.get(f"{url}/preview", headers=shop.customer(me))).json()
        assert {each["system"] for each in preview["waiting_for"]} == set(SYSTEMS)
        lists = [(await client.get("/v1/me/requests", headers=shop.customer(who))).json() for who in (me, other)]
        assert [len(each["items"]) for each in lists] == [1, 1]
        assert (await client.post(f"{url}/cancel", headers=shop.customer(me))).json()["status"] == "cancelled"


@pytest.mark.attack("many requests of one person at two processes at once", expected="one is open, 409 names it")
async def test_a_person_has_one_open_request_of_each_kind(shop: Shop) -> None:
    me = uuid4()

    async def ask(kind: str) -> httpx.Response:
        async with shop.client() as client:
            return await client.post("/v1/me/requests", json={"kind": kind}, headers=shop.customer(me))

    answers = await asyncio.gather(*(ask("erasure") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    (opened,) = (answer.json()["request_id"] for answer in answers if answer.status_code == 201)
    assert all(opened in answer.json()["detail"] for answer in answers if answer.status_code == 409)
    assert (await ask("access")).status_code == 201
    assert (await ask("erasure")).status_code == 409
    async with shop.client() as client:
        assert (await client.post(f"/v1/me/requests/{opened}/cancel", headers=shop.customer(me))).status_code == 200
    assert (await ask("erasure")).status_code == 201


@pytest.mark.attack(
    "two staff members open requests of overlapping lists at once", expected="one is open, 409 names it"
)
async def test_each_person_of_a_list_has_one_open_request_of_each_kind(shop: Shop) -> None:
    """Whoever opens it; the opener's own retry gets its own answer."""
    first, second, third = people = [uuid4() for _ in range(3)]
    await shop.knows(*people)

    async def ask(headers: dict[str, str], *subjects: UUID, kind: str = "access") -> httpx.Response:
        body = {"kind": kind, "subject_ids": [str(each) for each in subjects], "identity_check": "callback"}
        async with shop.client() as client:
            return await client.post("/v1/requests", json=body, headers=headers)

    lists = ((first, second), (second, first), (third, second), (second,))
    tries = [(shop.staff(staff_id=uuid4()) | {"Idempotency-Key": str(uuid4())}, each) for each in lists]
    answers = await asyncio.gather(*(ask(headers, *each) for headers, each in tries))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    (opened,) = (answer.json()["request_id"] for answer in answers if answer.status_code == 201)
    assert all(opened in answer.json()["detail"] for answer in answers if answer.status_code == 409)
    again = await asyncio.gather(*(ask(headers, *each) for headers, each in tries))
    assert [answer.status_code for answer in again] == [{201: 200}.get(each.status_code, 409) for each in answers]
    assert (await ask(shop.staff(), second, kind="portability")).status_code == 201
    async with shop.client() as client:
        own = await client.post("/v1/me/requests", json={"kind": "access"}, headers=shop.customer(second))
    assert (own.status_code, opened in own.json()["detail"]) == (409, True)


async def test_a_key_sent_twice_at_once_opens_one_request(shop: Shop) -> None:
    subject, headers = uuid4(), {**shop.staff(), "Idempotency-Key": str(uuid4())}
    await shop.knows(subject)
    body = {"kind": "erasure", "subject_ids": [str(subject)], "identity_check": "callback"}
    async with shop.client() as client:
        tries = (client.post("/v1/requests", json=body, headers=headers) for _ in range(4))
        answers = await asyncio.gather(*tries)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["request_id"] for answer in answers}) == 1


async def test_a_rectification_is_sealed_at_once_and_forgotten_when_it_is_done(shop: Shop) -> None:
    subject = uuid4()
    await shop.knows(subject)
    right = {"identity": {"name": "Rosalind Wintergreen"}, "contact": {"email": "rosalind@wintergreen.example"}}
    body = {"kind": "rectification", "subject_ids": [str(subject)], "identity_check": "callback"}
    async with shop.client() as client:
        wrong = await client.post("/v1/requests", json=body, headers=shop.staff())
        empty = {**body, "rectification": {"identity": {"name": None}, "contact": {}}}
        assert (await client.post("/v1/requests", json=empty, headers=shop.staff())).status_code == 422
        opened = await client.post("/v1/requests", json={**body, "rectification": right}, headers=shop.staff())
        assert (wrong.status_code, opened.status_code) == (422, 201)
        stored = await shop.kit.db.fetchrow("SELECT * FROM rectifications")
        assert stored is not None
        assert b"Wintergreen" not in stored["identity"] + stored["contact"]
        await shop.settle()
        (command,) = [c for c in shop.sent if isinstance(c, RectifyHoldings)]
        assert command.identity is not None
        assert command.contact is not None
        state = await show(shop, client, opened.json()["request_id"])
    assert state["status"] == "completed"
    assert await shop.kit.db.fetchval("SELECT count(*) FROM rectifications") == 0


@pytest.mark.parametrize(
    ("right", "wrong_at"),
    [
        ({"contact": {"phone": "0228 12345617"}}, "rectification.contact.phone"),
        ({"contact": {"phone": "0228", "country": "DE"}}, "rectification.contact.phone"),
        ({"contact": {"email": "a..b@example.org"}}, "rectification.contact.email"),
        ({"identity": {"birth_date": "2999-01-01"}}, None),
        ({"identity": {"birth_date": "1899-12-31"}}, None),
    ],
)
async def test_a_correction_is_checked_as_what_the_person_states(
    shop: Shop, right: dict[str, Any], wrong_at: str | None
) -> None:
    subject = uuid4()
    await shop.knows(subject)
    body = {"kind": "rectification", "subject_ids": [str(subject)], "identity_check": "callback"}
    async with shop.client() as client:
        refused = await client.post("/v1/requests", json={**body, "rectification": right}, headers=shop.staff())
    assert refused.status_code == 422, refused.text
    assert [error["at"] for error in refused.json().get("errors", ())] == ([wrong_at] if wrong_at else [])
    assert await shop.kit.db.fetchval("SELECT count(*) FROM rectifications") == 0


async def test_the_check_of_an_identity_is_on_record_for_each_person(shop: Shop) -> None:
    people = sorted([uuid4(), uuid4()])
    await shop.knows(*people)
    body = {"kind": "erasure", "subject_ids": [str(each) for each in people]}
    async with shop.client() as client:
        first = (await client.post("/v1/requests", json=body, headers=shop.staff())).json()
        await client.post(
            f"/v1/requests/{first['request_id']}/identity", json={"check": "document"}, headers=shop.staff()
        )
        body = {"kind": "access", "subject_ids": [str(each) for each in people], "identity_check": "callback"}
        second = (await client.post("/v1/requests", json=body, headers=shop.staff())).json()
        for request, check in ((first, "document"), (second, "callback")):
            history = (await show(shop, client, request["request_id"]))["history"]
            checks = [line for line in history if line["what"] == "identity_confirmed"]
            assert sorted(line["subject_id"] for line in checks) == [str(each) for each in people]
            assert {line["reason"] for line in checks} == {check}


@pytest.mark.fault(40, "one key, two requests: an erasure of another person, another correction, other classes")
async def test_a_key_with_another_body_opens_nothing(shop: Shop) -> None:
    """Nor does it answer with the request that it opened before, as if that were what was asked for."""
    support = shop.staff("support", uuid4())
    name = {"rectification": {"identity": {"name": "Right Name"}}}
    both = {"rectification": {"identity": {"name": "Right Name"}, "contact": {"phone": "+4915112345678"}}}
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "another person": ({}, {"subject_ids": [str(uuid4())]}),
        "fewer classes": ({}, {"data_classes": ["contact"]}),
        "another kind": ({}, {"kind": "access"}),
        "another term": ({}, {"regime": "ccpa"}),
        "another check": ({}, {"identity_check": "document"}),
        "another name": (name, {"rectification": {"identity": {"name": "Righter Name"}}}),
        "a phone as well": (name, both),
    }
    async with shop.client() as client:
        for what, (stated, changed) in changes.items():
            subject = uuid4()
            await shop.knows(subject)
            kind = "rectification" if stated else "erasure"
            first = {"kind": kind, "subject_ids": [str(subject)], "identity_check": "callback", **stated}
            headers = {**support, "Idempotency-Key": str(uuid4())}
            bodies = (first, {**first, **changed}, first)
            answers = [await client.post("/v1/requests", json=body, headers=headers) for body in bodies]
            assert [answer.status_code for answer in answers] == [201, 422, 200], what
            assert answers[1].json()["type"] == "/problems/key_reused", what
            assert answers[2].json()["request_id"] == answers[0].json()["request_id"], what
    assert await shop.kit.db.fetchval("SELECT count(*) FROM rights_requests") == len(changes)


async def test_a_correction_sent_again_after_an_erasure_is_gone(shop: Shop) -> None:
    subject, support = uuid4(), {**shop.staff("support", uuid4()), "Idempotency-Key": str(uuid4())}
    await shop.knows(subject)
    body = {"kind": "rectification", "subject_ids": [str(subject)], "identity_check": "callback"}
    body |= {"rectification": {"identity": {"name": "Rosalind Wintergreen"}}}
    async with shop.client() as client:
        assert (await client.post("/v1/requests", json=body, headers=support)).status_code == 201
        vault: Any = shop.kit.vault
        vault.erased.update(key.key_id for key in vault.keys.values())
        keys = len(vault.keys)
        again = await client.post("/v1/requests", json=body, headers=support)
    assert (again.status_code, again.json()["type"], len(vault.keys)) == (410, "/problems/gone", keys)


async def test_a_rectification_that_the_owner_of_the_data_refuses_ends_with_the_reason(shop: Shop) -> None:
    """L5: nobody waits for an answer that will never be another one."""
    shop.refuses = Refusal.EMAIL_TAKEN
    right = {"contact": {"email": "taken@wintergreen.example"}}
    subject = uuid4()
    await shop.knows(subject)
    body = {"kind": "rectification", "subject_ids": [str(subject)], "identity_check": "callback"}
    async with shop.client() as client:
        opened = await client.post("/v1/requests", json={**body, "rectification": right}, headers=shop.staff())
        await shop.settle()
        state = await show(shop, client, opened.json()["request_id"])
    assert (state["status"], state["reason"], state["ended_at"]) == ("denied", "email_taken", "2026-11-24T00:00:00Z")
    assert [step["step"] for step in state["steps"]] == ["done"]
    last = [(line["what"], line["reason"]) for line in state["history"] if line["subject_id"] is None]
    assert last[-1] == ("refused", "email_taken")
    assert await shop.kit.db.fetchval("SELECT count(*) FROM rectifications") == 0


@pytest.mark.parametrize(
    ("misfits", "reason"), [((), "not_under_way"), (("too_long.consignee.lines", "no_lane"), "does_not_fit")]
)
async def test_a_correction_of_a_delivery_goes_to_the_owner_of_orders_alone(
    shop: Shop, misfits: tuple[str, ...], reason: str
) -> None:
    subject, order = uuid4(), uuid4()
    await shop.knows(subject)
    consignee = {
        "name": "Rosalind Wintergreen",
        "lines": ["1 Lane"],
        "city": "York",
        "postal_code": "YO1 7HH",
        "country": "GB",
    }
    delivery = {"order_id": str(order), "consignee": {**consignee, "phone": "+441904123456"}}
    body = {"kind": "rectification", "subject_ids": [str(subject)], "identity_check": "callback"}
    both = {"delivery": delivery, "identity": {"name": "Rosalind Wintergreen"}}
    async with shop.client() as client:
        wrong = await client.post("/v1/requests", json={**body, "rectification": both}, headers=shop.staff())
        right = {**body, "rectification": {"delivery": delivery}}
        opened = await client.post("/v1/requests", json=right, headers=shop.staff())
        assert (wrong.status_code, opened.status_code, opened.json()["data_classes"]) == (422, 201, ["delivery"])
        (stored,) = await shop.kit.db.fetch("SELECT order_id, delivery FROM delivery_corrections")
        assert stored["order_id"] == order
        assert b"Wintergreen" not in stored["delivery"]
        (step,) = (await show(shop, client, opened.json()["request_id"]))["steps"]
        assert [each["system"] for each in step["waiting_for"]] == ["order"]
        shop.refuses, shop.misfits = Refusal.NOT_UNDER_WAY, misfits
        await shop.settle()
        state = await show(shop, client, opened.json()["request_id"])
    (command,) = [c for c in shop.sent if isinstance(c, RectifyDelivery | RectifyHoldings)]
    assert isinstance(command, RectifyDelivery)
    assert (state["status"], state["reason"]) == ("denied", reason)
    assert [line["reason"] for line in state["history"] if line["what"] == "refused"] == [reason, *misfits]
    assert await shop.kit.db.fetchval("SELECT count(*) FROM delivery_corrections") == 0


async def test_an_access_request_is_ready_when_all_have_handed_over(shop: Shop) -> None:
    subject = uuid4()
    await shop.knows(subject)
    body = {"kind": "access", "subject_ids": [str(subject)], "identity_check": "callback"}
    async with shop.client() as client:
        shop.silent = {"account"}
        request_id = (await client.post("/v1/requests", json=body, headers=shop.staff())).json()["request_id"]
        await shop.settle()
        (step,) = (await show(shop, client, request_id))["steps"]
        assert (step["step"], [each["system"] for each in step["waiting_for"]]) == ("export", ["account"])
        shop.silent = set()
        await shop.tick(seconds=1)
        await shop.settle()
        state = await show(shop, client, request_id)
        assert (state["status"], state["steps"][0]["step"]) == ("running", "ready")
        await shop.sql("UPDATE rights_exports SET ended_at = now(), ended_as = 'fetched', destroyed_at = now()")
        await shop.tick(seconds=1)
        await shop.settle()
        assert (await show(shop, client, request_id))["status"] == "completed"


@pytest.mark.attack("privacy's database password changes a request's history", expected="refused by the database")
async def test_the_history_can_neither_be_changed_nor_removed(shop: Shop) -> None:
    async with shop.client() as client:
        await open_erasure(shop, client, uuid4())
    for statement in ("UPDATE rights_history SET what = 'x'", "DELETE FROM rights_history", "TRUNCATE rights_history"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.sql(statement)


async def test_a_term_is_extended_once_and_the_person_sees_it(shop: Shop) -> None:
    me = uuid4()
    async with shop.client() as client:
        request_id = await open_erasure(shop, client, me)
        path, body = f"/v1/requests/{request_id}/extend", {"reason": "complexity", "until": "2027-01-31T00:00:00Z"}
        assert (await show(shop, client, request_id))["due_at"] == "2026-12-24T00:00:00Z"
        nobody = await client.post(path, json=body)
        vague = await client.post(path, json={"reason": "holidays"}, headers=shop.staff())
        far = await client.post(path, json={**body, "until": "2027-02-25T00:00:00Z"}, headers=shop.staff())
        answers = await asyncio.gather(*(client.post(path, json=body, headers=shop.staff()) for _ in range(3)))
        assert [nobody.status_code, vague.status_code, far.status_code] == [401, 422, 422]
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
        state = await show(shop, client, request_id)
        own = (await client.get(f"/v1/me/requests/{request_id}", headers=shop.customer(me))).json()
    assert (state["due_at"], state["extension"]) == ("2027-01-31T00:00:00Z", "complexity")
    assert (own["due_at"], own["extension"]) == (state["due_at"], state["extension"])
    lines = [(line["what"], line["by_role"], line["reason"]) for line in state["history"]]
    assert lines.count(("extended", "support", "complexity")) == 1
    leaves = await shop.kit.db.fetchval("SELECT count(*) FROM evidence_leaves WHERE body LIKE '%extended%'")
    assert leaves == 1
