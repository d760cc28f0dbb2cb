"""Mails of the account service: recorded first, sent over SMTP with STARTTLS, and never after an erasure."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service import handlers
from account_service.mails import sending
from account_service.mails.sending import forget_mails, send_mails
from event_contracts.account import ContactCorrection
from event_contracts.order import DeliveryCorrected
from servicekit.core import faults
from servicekit.core.faults import Fault, InjectedFault
from servicekit.kafka.cloudevents import Received
from tests.integration.test_account_rectification import rectify
from tests.support.accounts import Shop, bearer, dsns, settings, shop
from tests.support.infra import postgres_server
from tests.support.inventory_events import unopenable

__all__ = ["dsns", "postgres_server", "settings", "shop"]  # fixtures


async def change_email(shop: Shop, language: str = "en") -> tuple[UUID, str, str]:
    """A customer who has just changed their address: id, old and new one."""
    subject_id, me = await shop.member(language=language)
    old = (await shop.http.get("/v1/accounts/me", headers=me)).json()["contact"]["email"]
    new = f"june.{uuid4().hex[:12]}@example.org"
    assert (await shop.http.patch("/v1/accounts/me", headers=me, json={"email": new})).status_code == 200
    return subject_id, old, new


async def mails_of(shop: Shop, subject_id: UUID) -> list[Any]:
    sql = "SELECT * FROM mails WHERE subject_id = $1 AND template <> 'confirm' ORDER BY recorded_at"
    return await shop.kit.db.fetch(sql, subject_id)


async def states(shop: Shop, subject_id: UUID) -> list[tuple[str, str | None]]:
    return [(row["state"], row["reason"]) for row in await mails_of(shop, subject_id)]


def about(event: DeliveryCorrected) -> Received[DeliveryCorrected]:
    return Received(event, uuid4(), "order", datetime.now(UTC), "order.events", 0, 0)


@pytest.mark.parametrize(
    ("language", "words"), [("en", "was changed"), ("de", "wurde geändert"), ("fr", "a été"), ("es", "ha cambiado")]
)
async def test_the_old_address_is_told_in_the_customers_language(shop: Shop, language: str, words: str) -> None:
    subject_id, old, new = await change_email(shop, language)
    (mail,) = (await shop.mails_to(old))[-1:]
    assert words in mail.partition("\n")[0]
    assert new not in mail
    assert [words in each for each in await shop.mails_to(new)] == []
    assert await states(shop, subject_id) == [("sent", None)]


async def test_the_old_address_is_told_when_support_changed_it(shop: Shop) -> None:
    subject_id, old = await shop.register()
    for _ in range(2):  # the command comes twice
        await rectify(shop, subject_id, contact=ContactCorrection(email=f"right.{uuid4().hex[:12]}@example.org"))
        await rectify(shop, subject_id, contact=ContactCorrection(phone="+4915112345678"))
    first, *_ = [mail for mail in await shop.mails_to(old) if mail.startswith("Your e-mail address was changed")]
    assert first
    # Two addresses were left, one mail each; the new phone is no matter of a mailbox.
    assert await states(shop, subject_id) == [("sent", None), ("sent", None)]


async def test_a_changed_delivery_is_told_once_to_the_buyer(shop: Shop) -> None:
    subject_id, email = await shop.register()
    order_id = uuid4()
    event = DeliveryCorrected(
        order_id=order_id, buyer_id=subject_id, consignee_id=uuid4(), number=2, delivery=unopenable()
    )
    stranger = event.model_copy(update={"buyer_id": uuid4()})
    for _ in range(2):
        received = [about(event), about(stranger)]
        await shop.kit.run_tx("test", lambda tx: handlers.on_delivery_corrected(shop.kit, tx, received))  # noqa: B023
    (mail,) = (await shop.mails_to(email))[-1:]
    assert f"https://shop.example/orders/{order_id}" in mail
    assert await states(shop, subject_id) == [("sent", None)]


@pytest.mark.attack("fill a mailbox by changing deliveries", expected="three mails a day, and notices of other kinds")
async def test_an_address_gets_three_mails_of_a_kind_a_day(shop: Shop) -> None:
    subject_id, email = await shop.register()
    for _ in range(2):
        await shop.begin(email=email)  # the day's mails of registrations are used up
    events = [
        about(
            DeliveryCorrected(
                order_id=uuid4(), buyer_id=subject_id, consignee_id=uuid4(), number=2, delivery=unopenable()
            )
        )
        for _ in range(4)
    ]
    await shop.kit.run_tx("test", lambda tx: handlers.on_delivery_corrected(shop.kit, tx, events))
    await shop.mails_to(email)
    of_deliveries = [row for row in await mails_of(shop, subject_id) if row["template"] == "delivery_changed"]
    ends = [(row["state"], row["reason"]) for row in of_deliveries]
    assert sorted(ends, key=str) == [("sent", None)] * 3 + [("withheld", "too_many")]
    me = bearer((await shop.sign_in(email)).json()["access_token"])
    new = f"eve.{uuid4().hex[:12]}@example.org"
    assert (await shop.http.patch("/v1/accounts/me", headers=me, json={"email": new})).status_code == 200
    assert (await shop.mails_to(email))[-1].startswith("Your e-mail address was changed")


async def test_a_guest_gets_no_mail_about_a_changed_delivery(shop: Shop) -> None:
    """Nobody has confirmed a guest's address."""
    answer = await shop.http.post("/v1/guests", json={"email": f"guest.{uuid4().hex[:12]}@example.org"})
    guest = UUID(answer.json()["subject_id"])
    event = DeliveryCorrected(order_id=uuid4(), buyer_id=guest, consignee_id=uuid4(), number=2, delivery=unopenable())
    await shop.kit.run_tx("test", lambda tx: handlers.on_delivery_corrected(shop.kit, tx, [about(event)]))
    assert await mails_of(shop, guest) == []


async def test_no_address_stands_in_the_queue_or_in_the_event(shop: Shop) -> None:
    subject_id, old, new = await change_email(shop)
    rows = str([dict(row) for row in await mails_of(shop, subject_id)])
    events = json.dumps(await shop.events(subject_id))
    for address in (old, new):
        assert address not in rows
        assert address not in events
    kind, disclosed = (await shop.events(subject_id))[-1]
    assert (kind, disclosed["recipient"], disclosed["fields"]) == (
        "ContactDisclosed.v1",
        "mail-provider",
        ["contact.email"],
    )
    assert disclosed["template"] == "mail-email-changed"
    await send_mails(shop.kit)
    assert [row["contact"] for row in await mails_of(shop, subject_id)] == [None]


async def test_nothing_is_sent_after_an_erasure(shop: Shop) -> None:
    subject_id, old, _ = await change_email(shop)
    (row,) = await mails_of(shop, subject_id)
    shop.vault.erased.add(row["key_id"])
    assert not [mail for mail in await shop.mails_to(old) if mail.startswith("Your e-mail address was changed")]
    assert await states(shop, subject_id) == [("withheld", "erased")]


async def test_a_key_that_goes_while_the_mail_is_written_stops_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    subject_id, old, _ = await change_email(shop)
    (row,) = await mails_of(shop, subject_id)
    lease = shop.vault.lease

    async def lease_the_last_time(purpose: str, wanted: Any) -> Any:
        keys = await lease(purpose, wanted)
        shop.vault.erased.add(row["key_id"])
        return keys

    monkeypatch.setattr(shop.vault, "lease", lease_the_last_time)
    for expected in ("recorded", "withheld"):
        assert not [mail for mail in await shop.mails_to(old) if mail.startswith("Your e-mail address was changed")]
        assert [state for state, _ in await states(shop, subject_id)] == [expected]
        await shop.kit.db.fetch("UPDATE mails SET next_try_at = now() WHERE state = 'recorded'")


async def test_a_mail_whose_row_an_erasure_took_is_not_sent(shop: Shop) -> None:
    """The erasure comes between the claim and the send."""
    subject_id, old, _ = await change_email(shop)
    claimed = await sending._claim(shop.kit, shop.kit.own)
    assert claimed
    await shop.kit.db.fetch("DELETE FROM mails WHERE subject_id = $1", subject_id)
    async with shop.kit.own.provider().connected() as client:
        await sending._send_all(shop.kit, shop.kit.own, client, claimed)
    assert not [mail for mail in await shop.mails_to(old) if mail.startswith("Your e-mail address was changed")]


async def test_a_provider_that_is_away_loses_nothing(shop: Shop) -> None:
    subject_id, old, _ = await change_email(shop)
    shop.mail.stop()
    await send_mails(shop.kit)
    assert await states(shop, subject_id) == [("recorded", None)]
    shop.mail.start()
    await until_sent(shop, subject_id)
    assert len([mail for mail in await shop.mails_to(old) if mail.startswith("Your e-mail")]) == 1


async def test_a_refusal_for_now_is_tried_again_and_one_for_good_is_blocked(shop: Shop) -> None:
    first, _, _ = await change_email(shop)
    shop.mail.refusals[:] = ["450 4.2.0 busy"]
    await send_mails(shop.kit)
    assert (await mails_of(shop, first))[0]["tries"] == 1
    await until_sent(shop, first)
    second, _, _ = await change_email(shop)
    shop.mail.refusals[:] = ["550 5.1.1 nobody of that name"]
    await send_mails(shop.kit)
    assert await states(shop, second) == [("blocked", "message_refused")]
    third, _, _ = await change_email(shop)
    await until_sent(shop, third)


async def test_a_mail_that_cannot_be_opened_stops_no_other(shop: Shop) -> None:
    """A wrong vault reads as an error, never as erased; the mail waits."""
    first, _, _ = await change_email(shop)
    shop.vault.unknown.add((await mails_of(shop, first))[0]["key_id"])
    second, _, _ = await change_email(shop)
    await send_mails(shop.kit)
    assert await states(shop, first) == [("recorded", None)]
    assert await states(shop, second) == [("sent", None)]
    await shop.kit.db.fetch("DELETE FROM mails WHERE subject_id = $1", first)


async def test_a_mail_on_which_the_code_fails_stops_no_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = await change_email(shop)
    row = (await mails_of(shop, first))[0]
    compose = sending.compose

    def fails(settings: Any, mail_id: UUID, *rest: Any) -> Any:
        if mail_id == row["mail_id"]:
            raise IndexError
        return compose(settings, mail_id, *rest)

    monkeypatch.setattr(sending, "compose", fails)
    second, _, _ = await change_email(shop)
    await send_mails(shop.kit)
    assert [(mail["state"], mail["tries"] >= 1) for mail in await mails_of(shop, first)] == [("recorded", True)]
    assert await states(shop, second) == [("sent", None)]


async def test_a_mail_that_nobody_takes_is_given_up_after_three_days(shop: Shop) -> None:
    subject_id, _, _ = await change_email(shop)
    await shop.kit.db.fetch("UPDATE mails SET recorded_at = recorded_at - interval '3 days 1 minute'")
    await send_mails(shop.kit)
    assert await states(shop, subject_id) == [("blocked", "gave_up")]


async def test_ended_mails_are_forgotten_after_a_month(shop: Shop) -> None:
    subject_id, _, _ = await change_email(shop)
    await send_mails(shop.kit)
    await forget_mails(shop.kit)
    assert len(await mails_of(shop, subject_id)) == 1
    await shop.kit.db.fetch("UPDATE mails SET ended_at = ended_at - interval '31 days'")
    await forget_mails(shop.kit)
    assert await mails_of(shop, subject_id) == []


@pytest.mark.parametrize(("point", "copies"), [("mail.claimed", 1), ("mail.sent", 2), ("mail.marked", 1)])
@pytest.mark.fault(
    5, "the answer of the mail provider, or the mark after it, is lost: the mail comes again with its Message-ID"
)
async def test_a_failure_between_claim_send_and_mark_loses_no_mail(shop: Shop, point: str, copies: int) -> None:
    subject_id, old, _ = await change_email(shop)
    faults.arm({point: Fault("error", at=1)})
    try:
        with suppress(InjectedFault):
            await send_mails(shop.kit)
        assert faults.HITS[point] >= 1
    finally:
        faults.arm({})
    # What another process does once the lease of the one that failed is over.
    await shop.kit.db.fetch("UPDATE mails SET next_try_at = now() WHERE state = 'recorded'")
    await until_sent(shop, subject_id)
    files = [path for path in shop.mail.all_mails() if path.parent.name == old]
    texts = [path.read_text() for path in files if "Your e-mail address was changed" in path.read_text()]
    assert len(texts) == copies
    assert len({line for text in texts for line in text.splitlines() if line.startswith("Message-ID")}) == 1


async def until_sent(shop: Shop, subject_id: UUID) -> None:
    async with asyncio.timeout(30):
        while any(state == "recorded" for state, _ in await states(shop, subject_id)):
            await send_mails(shop.kit)


async def test_errors_of_the_provider_show_no_address(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    _, old, _ = await change_email(shop)
    shop.mail.refusals[:] = [f"450 4.2.0 {old} is busy"]
    await send_mails(shop.kit)
    assert not shop.mail.refusals
    output = capsys.readouterr()
    assert old not in output.out + output.err


async def test_languages_are_chosen_and_shown(shop: Shop) -> None:
    _, me = await shop.member(language="fr")
    assert (await shop.http.get("/v1/accounts/me", headers=me)).json()["language"] == "fr"
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json={"language": "de"})
    assert (answer.json()["language"], answer.json()["contact"]["number"]) == ("de", 1)
    assert (await shop.http.patch("/v1/accounts/me", headers=me, json={"language": "xx"})).status_code == 422
