"""Registering tells nothing about who has an account, and an account exists when its address is confirmed."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service import registrations as handlers
from account_service.mails.domain import MAILS_A_DAY, MAILS_A_DAY_FROM_A_PEER
from account_service.registrations import TRIES, tidy
from deploy.local.mail import code_in
from servicekit.core import faults
from servicekit.core.faults import Fault
from servicekit.vault.leases import KeyName
from tests.support.accounts import BURST, PASSWORD, Shop, bearer, dsns, settings, shop
from tests.support.infra import postgres_server

__all__ = ["dsns", "postgres_server", "settings", "shop"]  # fixtures


def body_of(email: str, **fields: Any) -> dict[str, Any]:
    return {"email": email, "password": PASSWORD, "name": "Jane Canary"} | fields


async def count(shop: Shop, table: str, subject_id: UUID) -> int:
    number: int = await shop.kit.db.fetchval(f"SELECT count(*) FROM {table} WHERE subject_id = $1", subject_id)
    return number


@pytest.mark.attack(
    "find out by registering whether an address has an account", expected="202 and the same work either way"
)
async def test_the_answer_tells_nothing_about_an_account(shop: Shop) -> None:
    _, taken = await shop.register()
    unknown = f"new.{uuid4().hex[:12]}@example.org"
    seen = []
    for email in (taken, unknown):
        calls, index = shop.vault.calls, len(shop.vault.index)
        answer = await shop.http.post("/v1/accounts", json=body_of(email))
        body = answer.json() | {"registration_id": UUID(answer.json()["registration_id"]).version}
        rows = await count(shop, "registrations", UUID(answer.json()["registration_id"]))
        seen.append(
            (
                answer.status_code,
                body,
                sorted(answer.headers),
                rows,
                shop.vault.calls - calls,
                len(shop.vault.index) - index,
            )
        )
    assert seen[0] == seen[1]
    assert seen[0][0] == 202
    assert "You have an account already" in (await shop.mails_to(taken))[-1]
    assert "Confirm your e-mail address" in (await shop.mails_to(unknown))[-1]


async def test_the_owner_of_an_account_is_told_and_gets_no_code(shop: Shop) -> None:
    subject_id, email = await shop.register(language="de")
    registration_id, _ = await shop.begin(email=email.upper())
    mail = (await shop.mails_to(email))[-1]
    assert mail.startswith("Sie haben schon ein Konto")
    assert shop.kit.own.codes.code(registration_id) not in mail
    kind, disclosed = (await shop.events(subject_id))[-1]
    assert (kind, disclosed["template"]) == ("ContactDisclosed.v1", "mail-have-account")


async def test_nothing_exists_before_the_address_is_confirmed(shop: Shop) -> None:
    directory = len(shop.vault.index)
    registration_id, email = await shop.begin(phone="+4915112345678")
    unknown = await shop.sign_in("nobody." + email)
    answer = await shop.sign_in(email)
    assert (answer.status_code, answer.json(), sorted(answer.headers)) == (401, unknown.json(), sorted(unknown.headers))
    assert len(shop.vault.index) == directory, "the directory knows an address that nobody confirmed"
    assert await shop.events(registration_id) == []
    await shop.confirm(registration_id, code_in((await shop.mails_to(email))[-1]))
    assert (await shop.sign_in(email)).status_code == 200
    kinds = [kind for kind, _ in await shop.events(registration_id)]
    assert kinds == ["AccountRegistered.v1", "ContactDisclosed.v1"]
    contact = KeyName(registration_id, "contact", registration_id)
    assert {(name, kind) for name, kind, _ in shop.vault.index[directory:]} == {(contact, "email"), (contact, "phone")}
    assert await count(shop, "registrations", registration_id) == 0


async def test_the_code_of_the_mail_and_its_link_are_one(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    mail = (await shop.mails_to(email))[-1]
    assert f"https://shop.example/confirm#{registration_id}.{code_in(mail)}" in mail
    typed = code_in(mail).lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert (await shop.confirm(registration_id, typed)).json() == {"subject_id": str(registration_id)}


async def test_a_code_stands_nowhere(shop: Shop) -> None:
    registration_id, _ = await shop.begin()
    code = shop.kit.own.codes.code(registration_id)
    rows = await shop.kit.db.fetch("SELECT * FROM registrations") + await shop.kit.db.fetch("SELECT * FROM mails")
    assert rows
    assert code not in str([dict(row) for row in rows])
    assert code.replace("-", "") not in str([dict(row) for row in rows])


async def test_confirming_again_changes_nothing(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    code = code_in((await shop.mails_to(email))[-1])
    answers = await asyncio.gather(*(shop.confirm(registration_id, code) for _ in range(3)))
    answers.append(await shop.confirm(registration_id, code))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await shop.events(registration_id)) == 2


@pytest.mark.attack("guess the code of somebody else's registration", expected="401 each time, and ten tries at most")
async def test_tries_are_bounded_and_refused_alike(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    right = code_in((await shop.mails_to(email))[-1])
    unknown = await shop.confirm(uuid4(), right)
    answers = [await shop.confirm(registration_id, "00000-00000") for _ in range(TRIES)]
    assert {(a.status_code, a.text) for a in (*answers, unknown)} == {(401, unknown.text)}
    assert (await shop.confirm(registration_id, right)).status_code == 401
    assert (await shop.sign_in(email)).status_code == 401


async def test_a_registration_dies_after_a_day(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    code = code_in((await shop.mails_to(email))[-1])
    await shop.kit.db.fetch("UPDATE registrations SET registered_at = registered_at - interval '24 hours'")
    assert (await shop.confirm(registration_id, code)).status_code == 401
    await tidy(shop.kit)
    assert await count(shop, "registrations", registration_id) == 0
    assert await count(shop, "mails", registration_id) == 0


async def test_a_confirmation_that_comes_too_late_is_not_sent(shop: Shop) -> None:
    _, email = await shop.begin()
    await shop.kit.db.fetch("UPDATE registrations SET registered_at = registered_at - interval '24 hours'")
    assert await shop.mails_to(email) == []


STRANGERS_PASSWORD = "the stranger's own password"


@pytest.mark.attack(
    "register a victim's address first, and have the victim confirm it",
    expected="401: the victim's password is not that of the registration; their own registration works",
)
async def test_a_confirmation_needs_the_password_of_the_registration(shop: Shop) -> None:
    email = f"victim.{uuid4().hex[:12]}@example.org"
    strangers, _ = await shop.begin(email=email, password=STRANGERS_PASSWORD)
    victims, _ = await shop.begin(email=email)
    codes = [code_in(mail) for mail in await shop.mails_to(email)]
    refused = await shop.confirm(strangers, codes[0])
    wrong = await shop.confirm(uuid4(), codes[0])
    assert (refused.status_code, refused.text) == (401, wrong.text), "the victim confirmed a stranger's password"
    assert (await shop.sign_in(email, STRANGERS_PASSWORD)).status_code == 401
    assert (await shop.confirm(victims, codes[1])).json() == {"subject_id": str(victims)}
    assert (await shop.sign_in(email)).status_code == 200
    assert (await shop.sign_in(email, STRANGERS_PASSWORD)).status_code == 401
    assert (await shop.confirm(strangers, codes[0], STRANGERS_PASSWORD)).status_code == 409


@pytest.mark.attack("guess the password of a registration whose code is known", expected="401 each time, ten tries")
async def test_tries_of_a_password_are_bounded(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    code = code_in((await shop.mails_to(email))[-1])
    refused = [await shop.confirm(registration_id, code, f"a wrong password {each}") for each in range(TRIES)]
    assert {answer.status_code for answer in refused} == {401}
    assert (await shop.confirm(registration_id, code)).status_code == 401


@pytest.mark.attack("guess an account's password with the code that confirmed it", expected="429 as at sign-in")
async def test_tries_after_the_confirmation_count_as_tries_to_sign_in(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    code = code_in((await shop.mails_to(email))[-1])
    assert (await shop.confirm(registration_id, code)).status_code == 200
    answers = [await shop.confirm(registration_id, code, f"a wrong password {each}") for each in range(BURST + 1)]
    assert [answer.status_code for answer in answers] == [401] * BURST + [429]
    assert (await shop.sign_in(email)).status_code == 429


@pytest.mark.attack("use up the mails of a victim's address", expected="two mails a day from one peer; one is left")
async def test_a_stranger_leaves_the_owner_a_mail(shop: Shop) -> None:
    email = f"victim.{uuid4().hex[:12]}@example.org"
    async with shop.from_peer("192.0.2.66") as stranger:
        for _ in range(MAILS_A_DAY + 1):
            answer = await stranger.post("/v1/accounts", json=body_of(email, password=STRANGERS_PASSWORD))
            assert answer.status_code == 202
    assert len(await shop.mails_to(email)) == MAILS_A_DAY_FROM_A_PEER
    registration_id, _ = await shop.begin(email=email)
    mails = await shop.mails_to(email)
    assert len(mails) == MAILS_A_DAY_FROM_A_PEER + 1, "a stranger used up the owner's mails"
    assert (await shop.confirm(registration_id, code_in(mails[-1]))).status_code == 200


@pytest.mark.attack("fill a stranger's mailbox by registering", expected="three mails a day, and no more keys")
async def test_an_address_gets_three_mails_a_day(shop: Shop) -> None:
    email = f"victim.{uuid4().hex[:12]}@example.org"
    for each in range(MAILS_A_DAY):
        async with shop.from_peer(f"192.0.2.{each}") as stranger:
            await stranger.post("/v1/accounts", json=body_of(email))
    keys = len(shop.vault.keys)
    await shop.begin(email=email.upper())
    assert len(shop.vault.keys) == keys
    assert len(await shop.mails_to(email)) == MAILS_A_DAY
    rows = str([dict(row) for row in await shop.kit.db.fetch("SELECT * FROM mail_counts")])
    assert email not in rows
    assert str(await shop.kit.digest("email", email)) not in rows
    await shop.kit.db.fetch("UPDATE mail_counts SET day = day - 1")
    await tidy(shop.kit)
    assert await shop.kit.db.fetch("SELECT * FROM mail_counts") == []


@pytest.mark.fault(25, "two people confirm one address at once")
async def test_one_address_makes_one_account_and_leaves_no_ghost(shop: Shop) -> None:
    """The directory names the winner alone; the mailbox's owner is told."""
    email = f"both.{uuid4().hex[:12]}@example.org"
    ids = [(await shop.begin(email=email))[0] for _ in range(2)]
    await shop.mails_to(email)
    directory = len(shop.vault.index)
    answers = await asyncio.gather(*(shop.confirm(each, shop.kit.own.codes.code(each)) for each in ids))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    winner = ids[[answer.status_code for answer in answers].index(200)]
    assert {name.subject for name, _, _ in shop.vault.index[directory:]} == {winner}
    me = bearer((await shop.sign_in(email)).json()["access_token"])
    assert (await shop.http.get("/v1/accounts/me", headers=me)).json()["subject_id"] == str(winner)
    assert (await shop.mails_to(email))[-1].startswith("You have an account already")


@pytest.mark.fault(1, "a process dies after it refused a second account for an address")
async def test_the_owner_is_told_of_a_second_account_in_the_transaction_that_refuses_it(shop: Shop) -> None:
    email = f"both.{uuid4().hex[:12]}@example.org"
    ids = [(await shop.begin(email=email))[0] for _ in range(2)]
    codes = [code_in(mail) for mail in await shop.mails_to(email)]
    assert (await shop.confirm(ids[0], codes[0])).status_code == 200
    faults.arm({"tx.committed": Fault("error", at=2)})  # the first is the try's
    try:
        assert (await shop.confirm(ids[1], codes[1])).status_code == 500
    finally:
        faults.arm({})
    assert await count(shop, "registrations", ids[1]) == 0
    assert (await shop.mails_to(email))[-1].startswith("You have an account already")


@pytest.mark.fault(1, "a process dies between an account and its entry in the directory")
async def test_an_account_comes_into_the_directory_after_a_crash(shop: Shop) -> None:
    registration_id, email = await shop.begin()
    code = code_in((await shop.mails_to(email))[-1])
    directory = len(shop.vault.index)
    faults.arm({"account.confirmed": Fault("error", at=1)})
    try:
        assert (await shop.confirm(registration_id, code)).status_code == 500
    finally:
        faults.arm({})
    assert len(shop.vault.index) == directory
    await tidy(shop.kit)
    assert [name.subject for name, _, _ in shop.vault.index[directory:]] == [registration_id]
    assert await shop.kit.db.fetchval("SELECT count(*) FROM accounts WHERE NOT listed") == 0


async def test_one_key_with_another_body_is_refused(shop: Shop) -> None:
    """The password counts as well, before and after the confirmation."""
    headers = {"Idempotency-Key": str(uuid4())}
    body = body_of(f"key.{uuid4().hex[:12]}@example.org")
    first = await shop.http.post("/v1/accounts", json=body, headers=headers)
    registration_id = UUID(first.json()["registration_id"])
    changes: list[tuple[bool, list[dict[str, Any]]]] = [
        (False, [{"name": "Eve"}, {"email": "x" + body["email"]}, {"language": "fr"}]),
        (True, [{"password": "another long password"}]),
    ]
    for confirmed, others in changes:
        if confirmed:
            await shop.confirm(registration_id, code_in((await shop.mails_to(body["email"]))[-1]))
        again = await shop.http.post("/v1/accounts", json=body, headers=headers)
        assert (again.status_code, again.json()) == (202, first.json())
        for other in others:
            assert (await shop.http.post("/v1/accounts", json=body | other, headers=headers)).status_code == 422
    assert len(await shop.mails_to(body["email"])) == 1


async def test_codes_differ_by_registration_and_key() -> None:
    codes = handlers.sending.Codes(b"00" * 32), handlers.sending.Codes(b"01" * 32)
    one, two = uuid4(), uuid4()
    assert len({each.code(which) for each in codes for which in (one, two)}) == 4
    assert not codes[0].is_right(one, codes[1].code(one))
    day = handlers.REGISTRATION_LIFE
    assert day == timedelta(days=1)
