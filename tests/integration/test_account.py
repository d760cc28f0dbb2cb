"""Letting people in, and their own data: the account service on a real Postgres."""

import asyncio
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from account_service.settings import AccountSettings
from account_service.sign_in import REGISTER, REGISTER_PEER, SIGN_IN_EVERYWHERE, SIGN_IN_HOURLY, SIGNED_IN, Access
from deploy.local.mail import code_in
from servicekit.core.clock import FakeClock
from servicekit.core.errors import TooMany
from servicekit.db.postgres import Tx
from servicekit.http.limits import Limit, Limits, forget_tries
from servicekit.vault.leases import KeyName
from tests.support.accounts import BURST, PASSWORD, Shop, bearer, dsns, settings, shop
from tests.support.infra import postgres_server

__all__ = ["dsns", "postgres_server", "settings", "shop"]  # fixtures


async def everything(shop: Shop) -> bytes:
    """All rows of all tables of the service, as text."""
    tables = await shop.kit.db.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('public', 'kit')"
    )
    rows = [str(await shop.kit.db.fetch(f"SELECT * FROM {table['name']}")) for table in tables]
    return "\n".join(rows).encode()


async def test_registered_people_sign_in_and_read_their_own_data(shop: Shop) -> None:
    subject_id, me = await shop.member(birth_date="1990-02-03", phone="+4915112345678")
    answer = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    assert (answer["subject_id"], answer["guest"]) == (str(subject_id), False)
    assert answer["identity"] == {"number": 1, "name": "Jane Canary", "birth_date": "1990-02-03"}
    assert answer["contact"]["phone"] == "+4915112345678"


async def test_registration_is_one_vault_call_and_makes_one_event_without_credentials(shop: Shop) -> None:
    calls = shop.vault.calls
    registration_id, email = await shop.begin(phone="+4915112345678")
    assert shop.vault.calls == calls + 1
    await shop.confirm(registration_id, code_in((await shop.mails_to(email))[-1]))
    (kind, body), _ = await shop.events(registration_id)
    assert kind == "AccountRegistered.v1"
    assert sorted(body) == ["contact", "guest", "identity", "subject_id"]
    contact = KeyName(registration_id, "contact", registration_id)
    assert [(name, kind) for name, kind, _ in shop.vault.index] == [(contact, "email"), (contact, "phone")]


async def test_nothing_personal_is_stored_in_clear(shop: Shop) -> None:
    _, email = await shop.register(name="Zoë Canary-4711", phone="+4915199988877")
    stored = await everything(shop)
    assert b"AccountRegistered" in stored
    for secret in (email, "Canary-4711", "15199988877", PASSWORD, "argon2"):
        assert secret.encode() not in stored


async def test_unknown_address_and_wrong_password_are_refused_alike(shop: Shop) -> None:
    _, email = await shop.register()
    wrong, unknown = await shop.sign_in(email, "wrong password"), await shop.sign_in("nobody." + email)
    assert (wrong.status_code, wrong.json()) == (401, unknown.json())
    assert dict(wrong.headers) == dict(unknown.headers)


async def test_sign_in_is_limited_per_address(shop: Shop) -> None:
    _, email = await shop.register()
    _, other = await shop.register()
    answers = [await shop.sign_in(email, "wrong password") for _ in range(BURST + 1)]
    assert [answer.status_code for answer in answers] == [401] * BURST + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await shop.sign_in(email.upper())).status_code == 429
    assert (await shop.sign_in(other)).status_code == 200


def _limits(shop: Shop, factor: float = 1, clock: FakeClock | None = None) -> Limits:
    """As another process of the service has them."""
    return Limits(shop.kit.db, clock or shop.kit.clock, b"k" * 32, factor)


@pytest.mark.attack("many tries at once, at two processes", expected="as many pass as at one process")
async def test_tries_count_across_the_processes_of_a_service(shop: Shop) -> None:
    limit, term = Limit("tried", 10, 60), uuid4().hex
    here, there = _limits(shop), _limits(shop)
    tried = await asyncio.gather(
        *(process.take((limit, term)) for process in (here, there) for _ in range(10)), return_exceptions=True
    )
    assert sum(each is None for each in tried) == 10
    refused = [each for each in tried if each is not None]
    assert all(isinstance(each, TooMany) and 0 < each.retry_after <= 60 for each in refused)
    await here.take((limit, "somebody else"))


async def test_tries_are_kept_under_digests_and_forgotten_in_time(shop: Shop) -> None:
    clock, term = FakeClock(), uuid4().hex
    limits = _limits(shop, clock=clock)
    await limits.take((Limit("once", 1, 60), term))
    with pytest.raises(TooMany):
        await limits.take((Limit("once", 1, 60), term))
    rows = await shop.kit.db.fetch("SELECT l::text AS line, ends_at FROM kit.rate_limits l")
    assert not any(term in row["line"] for row in rows)
    clock.tick(60)
    await limits.take((Limit("once", 1, 60), term))
    clock.tick(86_400 + 60)
    await forget_tries(shop.kit.db, clock.now())
    assert await shop.kit.db.fetch("SELECT FROM kit.rate_limits WHERE ends_at <= $1", clock.now()) == []


@pytest.mark.attack("wrong passwords for one address from many peers", expected="the owner still signs in from home")
async def test_strangers_cannot_lock_an_owner_out(shop: Shop, settings: AccountSettings) -> None:
    access = Access(settings, shop.kit.clock, _limits(shop, factor=10 / SIGN_IN_EVERYWHERE.most))
    address = uuid4().bytes
    await access.remember(address, "10.0.0.1")
    for number in range(10):
        await access.admit_sign_in(address, f"10.0.1.{number}")
    for peer in ("10.0.1.0", "10.0.2.1"):
        with pytest.raises(TooMany):
            await access.admit_sign_in(address, peer)
    await access.admit_sign_in(address, "10.0.0.1")


@pytest.mark.attack("use up an owner's tries to sign in from one peer", expected="other peers still have theirs")
async def test_one_peer_does_not_use_up_the_tries_of_all(shop: Shop, settings: AccountSettings) -> None:
    access = Access(settings, shop.kit.clock, _limits(shop, factor=1))
    access.sign_in_limit = Limit("sign_in", 1_000, 60, "term")
    address = uuid4().bytes
    for number in range(SIGN_IN_EVERYWHERE.most + 1):
        if number < SIGN_IN_HOURLY.most:
            await access.admit_sign_in(address, "10.0.0.1")
        else:
            with pytest.raises(TooMany):
                await access.admit_sign_in(address, "10.0.0.1")
    await access.admit_sign_in(address, "10.0.0.2")


@pytest.mark.attack("keep somebody from registering by trying with their address", expected="202 from another peer")
async def test_nobody_keeps_another_from_registering(shop: Shop) -> None:
    body = {"email": f"victim.{uuid4().hex[:12]}@example.org"}
    async with shop.from_peer("10.8.0.1") as http:
        answers = [(await http.post("/v1/guests", json=body)).status_code for _ in range(REGISTER.most * BURST + 1)]
    assert answers[-2:] == [201, 429]
    async with shop.from_peer("10.8.0.2") as http:
        assert (await http.post("/v1/guests", json=body)).status_code == 201


async def test_a_later_sign_in_is_remembered_longer(shop: Shop) -> None:
    clock, term = FakeClock(), uuid4().hex
    limits = _limits(shop, clock=clock)
    for _ in range(2):
        await limits.remember(SIGNED_IN, term)
        clock.tick(SIGNED_IN.seconds - 10)
    assert await limits.was_tried(SIGNED_IN, term)
    clock.tick(10)
    assert not await limits.was_tried(SIGNED_IN, term)


async def test_tries_that_somebody_counts_are_not_waited_for(shop: Shop) -> None:
    """What forgets them takes their rows in another order than what counts them."""
    clock, limit = FakeClock(), Limit("waited", 1, 60)
    limits = _limits(shop, clock=clock)
    await limits.count((limit, "held"), (limit, "free"))
    clock.tick(61)

    async def work(tx: Tx) -> None:
        await tx.fetch("SELECT FROM kit.rate_limits WHERE digest = $1 FOR UPDATE", limits._digest(limit, "held"))
        async with asyncio.timeout(20):
            await forget_tries(shop.kit.db, clock.now())

    await shop.kit.run_tx("test", work)
    left = await shop.kit.db.fetch("SELECT digest FROM kit.rate_limits WHERE ends_at <= $1", clock.now())
    assert [row["digest"] for row in left] == [limits._digest(limit, "held")]


async def test_an_account_without_credentials_has_no_password(shop: Shop) -> None:
    subject_id, email = await shop.register()
    await shop.kit.db.fetch("UPDATE accounts SET credentials = NULL WHERE subject_id = $1", subject_id)
    gone, unknown = await shop.sign_in(email), await shop.sign_in("nobody." + email)
    assert (gone.status_code, gone.json()) == (401, unknown.json())


async def test_one_key_of_two_guests_is_refused(shop: Shop) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    body = {"email": f"guest.{uuid4().hex[:12]}@example.org"}
    first = await shop.http.post("/v1/guests", headers=key, json=body)
    for other in ({"email": "x" + body["email"]}, {"phone": "+4915112345678"}, {"language": "de"}):
        again = await shop.http.post("/v1/guests", headers=key, json=body | other)
        assert (again.status_code, again.json()["type"]) == (422, "/problems/key_reused")
    same = await shop.http.post("/v1/guests", headers=key, json=body)
    assert (same.status_code, same.json()["subject_id"]) == (201, first.json()["subject_id"])
    await shop.kit.db.fetch(
        "UPDATE accounts SET contact = NULL WHERE subject_id = $1", UUID(first.json()["subject_id"])
    )
    assert (await shop.http.post("/v1/guests", headers=key, json=body)).status_code == 410


async def test_whoever_signs_in_is_remembered_by_address_and_peer(shop: Shop) -> None:
    _, email = await shop.register()
    access = Access(cast(AccountSettings, shop.kit.settings), shop.kit.clock, shop.kit.limits)
    digest = await shop.kit.digest("email", email)
    term = digest + b"127.0.0.1"
    assert (await shop.sign_in(email, "wrong password")).status_code == 401
    assert not await access.limits.was_tried(SIGNED_IN, term)
    assert (await shop.sign_in(email)).status_code == 200
    assert await access.limits.was_tried(SIGNED_IN, term)


@pytest.mark.attack("registration without an end from one peer", expected="429 before anything is sealed")
async def test_a_peer_registers_so_many_people_and_no_more(shop: Shop) -> None:
    def body() -> dict[str, str]:
        return {"email": f"{uuid4().hex}@example.org"}

    async with shop.from_peer("10.9.9.9") as http:
        most = REGISTER_PEER.most * BURST
        answers = [(await http.post("/v1/guests", json=body())).status_code for _ in range(most + 1)]
        sealed = shop.vault.calls
        assert (await http.post("/v1/guests", json=body())).status_code == 429
    assert (answers[-2:], shop.vault.calls) == ([201, 429], sealed)
    async with shop.from_peer("10.9.9.8") as http:
        assert (await http.post("/v1/guests", json=body())).status_code == 201


async def test_passwords_count_as_the_same_however_they_are_typed(shop: Shop) -> None:
    _, email = await shop.register(password="Zoe\u0308's caf\u00e9 password")
    assert (await shop.sign_in(email, "Zo\u00eb's cafe\u0301 password")).status_code == 200


async def test_an_edit_raises_the_version_of_the_part_that_changed(shop: Shop) -> None:
    subject_id, me = await shop.member(phone="+4915112345678")
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json={"name": "June", "phone": "+4915112345678"})
    assert (answer.json()["identity"]["number"], answer.json()["contact"]["number"]) == (2, 1)
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json={"phone": None})
    assert answer.json()["contact"] == {"number": 2, "email": answer.json()["contact"]["email"], "phone": None}
    events = await shop.events(subject_id)
    assert [(kind, body.get("number")) for kind, body in events[2:]] == [
        ("IdentityChanged.v1", 2),
        ("ContactChanged.v1", 2),
    ]


async def test_a_new_address_signs_in_and_the_old_one_no_more(shop: Shop) -> None:
    subject_id, old = await shop.register()
    me = bearer((await shop.sign_in(old)).json()["access_token"])
    new = f"june.{uuid4().hex[:12]}@example.org"
    assert (await shop.http.patch("/v1/accounts/me", headers=me, json={"email": new})).status_code == 200
    assert (await shop.sign_in(old)).status_code == 401
    assert (await shop.sign_in(new)).status_code == 200
    assert shop.vault.index[-1][:2] == (KeyName(subject_id, "contact", subject_id), "email")


async def test_an_edit_to_a_taken_address_changes_nothing(shop: Shop) -> None:
    _, taken = await shop.register()
    subject_id, me = await shop.member()
    directory = list(shop.vault.index)
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json={"email": taken, "name": "Eve"})
    assert answer.status_code == 409
    assert shop.vault.index == directory
    assert (await shop.http.get("/v1/accounts/me", headers=me)).json()["identity"]["name"] == "Jane Canary"
    assert len(await shop.events(subject_id)) == 2


@pytest.mark.fault(25, "edits at once")
async def test_edits_at_once_get_numbers_without_gaps_in_the_order_of_events(shop: Shop) -> None:
    subject_id, me = await shop.member()
    edits = (shop.http.patch("/v1/accounts/me", headers=me, json={"name": f"Name {n}"}) for n in range(5))
    answers = await asyncio.gather(*edits)
    done = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 409}
    events = await shop.events(subject_id)
    assert [body["number"] for _, body in events[2:]] == list(range(2, len(done) + 2))


async def test_a_phone_is_kept_and_found_in_one_form_however_it_is_written(shop: Shop) -> None:
    """The directory's digest is that of the form in which staff's search comes."""
    subject_id, me = await shop.member(phone="0151 / 1234 5678", country="DE")
    shown = (await shop.http.get("/v1/accounts/me", headers=me)).json()["contact"]
    assert (shown["phone"], "country" in shown) == ("+4915112345678", False)
    key = KeyName(subject_id, "contact", subject_id)
    assert (key, "phone", await shop.kit.digest("phone", "+4915112345678")) in shop.vault.index
    same = {"phone": "0049 (0)151 12345678", "country": "DE"}
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json=same)
    assert answer.json()["contact"]["number"] == 1
    answer = await shop.http.patch("/v1/accounts/me", headers=me, json={"phone": "0151 12345678"})
    assert (answer.status_code, answer.json()["errors"][0]["at"]) == (422, "phone")
    assert answer.json()["errors"][0]["expected"].endswith("or say its country.")


async def test_guests_have_a_token_and_no_account(shop: Shop) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    contact = {"email": f"guest.{uuid4().hex[:12]}@example.org", "phone": "+4915112345678"}
    first = await shop.http.post("/v1/guests", headers=key, json=contact)
    again = await shop.http.post("/v1/guests", headers=key, json=contact)
    assert (first.status_code, again.status_code) == (201, 201)
    me = bearer(first.json()["access_token"])
    shown = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    assert (shown["guest"], shown["identity"], shown["contact"]["email"]) == (True, None, contact["email"])
    assert (await shop.http.get("/v1/accounts/me/addresses", headers=me)).status_code == 403
    assert (await shop.http.patch("/v1/accounts/me", headers=me, json={"phone": None})).status_code == 403
    ((_, body),) = await shop.events(UUID(first.json()["subject_id"]))
    assert first.json()["subject_id"] == again.json()["subject_id"] != key["Idempotency-Key"]
    assert (body["guest"], body["identity"]) == (True, None)


@pytest.mark.attack("begin as a guest under the id of a person", expected="a new person's token, or 422")
async def test_a_known_id_gives_no_token_to_strangers(shop: Shop) -> None:
    member, _ = await shop.register()
    guest = (await shop.http.post("/v1/guests", json={"email": f"{uuid4().hex[:12]}@example.org"})).json()["subject_id"]
    consignee = uuid4()  # the order service makes these
    for known in (str(member), guest):
        body = {"email": f"eve.{uuid4().hex[:12]}@example.org"}
        answer = await shop.http.post("/v1/guests", headers={"Idempotency-Key": known}, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "uuid_version")
    body = {"email": f"eve.{uuid4().hex[:12]}@example.org"}
    answer = await shop.http.post("/v1/guests", headers={"Idempotency-Key": str(consignee)}, json=body)
    assert answer.json()["subject_id"] not in (str(member), guest, str(consignee))
    assert not any(name.subject == consignee for name in shop.vault.keys)


@pytest.mark.parametrize(
    "name", ["Łukasz Żółć", "محمد بن سلمان", "สมชาย ใจดี", "김민준", "Ṛgveda Śāstrī", "O'Neill 3rd"]
)
async def test_names_of_every_script_come_back_as_given(shop: Shop, name: str) -> None:
    _, me = await shop.member(name=name)
    assert (await shop.http.get("/v1/accounts/me", headers=me)).json()["identity"]["name"] == name


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("name", "Jane\u0000Canary"),
        ("name", "  "),
        ("name", "x" * 201),
        ("password", "horse"),
        ("email", "jane"),
        ("phone", "015112345678"),
        ("birth_date", "yesterday"),
        ("admin", True),
    ],
)
async def test_registrations_out_of_shape_are_refused_without_an_echo(shop: Shop, field_name: str, value: Any) -> None:
    body = {"email": "a@example.org", "password": PASSWORD, "name": "Jane", field_name: value}
    answer = await shop.http.post("/v1/accounts", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["at"] == ("*" if field_name == "admin" else field_name)
    assert str(value) not in answer.text or value == "  "


async def test_nobody_is_born_tomorrow(shop: Shop) -> None:
    body = {"email": "a@example.org", "password": PASSWORD, "name": "Jane", "birth_date": "2999-01-01"}
    assert (await shop.http.post("/v1/accounts", json=body)).status_code == 422


async def test_openapi_names_every_route_and_every_form_of_browsing(shop: Shop) -> None:
    operations = [operation for path in shop.openapi["paths"].values() for operation in path.values()]
    assert len(operations) == 17
    assert all(operation["summary"] for operation in operations)
    browsing = shop.openapi["paths"]["/v1/browsing-events"]["post"]
    assert len(browsing["requestBody"]["content"]) == 3
