"""Support's corrections of identity and contact, on the privacy service's command: the account service on Postgres."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from account_service.app import RECTIFICATION
from event_contracts.account import ContactCorrection, IdentityCorrection
from event_contracts.privacy import PRIVACY_COMMANDS, RectifyHoldings
from servicekit.kafka.batches import Applier, Batch
from servicekit.kafka.cloudevents import RawRecord, to_headers
from servicekit.vault.leases import KeyName
from tests.support.accounts import Shop, bearer, dsns, settings, shop
from tests.support.infra import postgres_server

__all__ = ["dsns", "postgres_server", "settings", "shop"]  # fixtures


async def rectify(shop: Shop, subject_id: UUID, *, times: int = 1, **values: Any) -> UUID:
    """The command, as the privacy service sends it, `times` over. Returns the request's id."""
    request_id = uuid4()
    sealed = {name: await shop.kit.seal(value, subject=subject_id, anchor=subject_id) for name, value in values.items()}
    reader = RECTIFICATION.reader
    await shop.kit.db.fetch(
        "INSERT INTO kit.positions VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING", reader, PRIVACY_COMMANDS
    )
    begin: int = await shop.kit.db.fetchval("SELECT next FROM kit.positions WHERE reader = $1", reader)
    command = RectifyHoldings(
        request_id=request_id,
        subject_id=subject_id,
        identity=sealed.get("identity"),
        contact=sealed.get("contact"),
    )
    records = []
    for position in range(begin, begin + times):
        headers = to_headers(command, event_id=uuid4(), source="privacy", time=datetime.now(UTC))
        body = command.model_dump_json().encode()
        records.append(RawRecord(PRIVACY_COMMANDS, 0, position, str(request_id).encode(), body, tuple(headers)))
    applier = Applier(shop.kit, RECTIFICATION)
    applier.next = {(PRIVACY_COMMANDS, 0): begin}
    batch = Batch(records)
    await applier.apply(batch, applier.prepare(batch))
    return request_id


async def answers(shop: Shop, request_id: UUID) -> list[int]:
    return [body["number"] for _, body in await shop.events(request_id)]


async def test_a_correction_is_a_version_that_is_shown_announced_and_answered(shop: Shop) -> None:
    """R1: and a command that is sent twice makes one version."""
    subject_id, me = await shop.member()
    request_id = await rectify(shop, subject_id, times=2, identity=IdentityCorrection(name="Jane C. Corrected"))
    shown = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    assert (shown["identity"]["name"], shown["identity"]["number"]) == ("Jane C. Corrected", 2)
    assert await answers(shop, request_id) == [2, 2]
    events = [(kind, body["number"]) for kind, body in await shop.events(subject_id) if "number" in body]
    assert events == [("IdentityChanged.v1", 2)]


async def test_a_corrected_address_is_the_one_to_sign_in_and_to_be_found_by(shop: Shop) -> None:
    subject_id, email = await shop.register()
    new = f"right.{uuid4().hex[:12]}@example.org"
    request_id = await rectify(shop, subject_id, contact=ContactCorrection(email=new))
    assert await answers(shop, request_id) == [2]
    assert (await shop.sign_in(email)).status_code == 401
    token = (await shop.sign_in(new)).json()["access_token"]
    shown = (await shop.http.get("/v1/accounts/me", headers=bearer(token))).json()
    assert shown["contact"]["email"] == new
    digest = await shop.kit.digest("email", new)
    assert (KeyName(subject_id, "contact", subject_id), "email", digest) in shop.vault.index


async def test_what_a_correction_leaves_out_stays_as_it_is(shop: Shop) -> None:
    subject_id, me = await shop.member()
    await rectify(shop, subject_id, identity=IdentityCorrection(birth_date=date(1990, 2, 28)))
    await rectify(shop, subject_id, contact=ContactCorrection(phone="+4930123456"))
    before = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    await rectify(shop, subject_id, identity=IdentityCorrection(name="Jane C. Corrected"))
    new = f"right.{uuid4().hex[:12]}@example.org"
    await rectify(shop, subject_id, contact=ContactCorrection(email=new))
    shown = (await shop.http.get("/v1/accounts/me", headers=me)).json()
    assert (shown["identity"]["name"], shown["identity"]["birth_date"]) == ("Jane C. Corrected", "1990-02-28")
    assert (shown["contact"]["email"], shown["contact"]["phone"]) == (new, "+4930123456")
    assert before["identity"]["name"] != "Jane C. Corrected"


async def test_somebody_elses_address_is_refused_with_a_reason_and_changes_nothing(shop: Shop) -> None:
    """L5: the request ends, and says why; also what else it asked for is not done."""
    subject_id, email = await shop.register()
    _, taken = await shop.register()
    before = await shop.events(subject_id)
    request_id = await rectify(
        shop, subject_id, identity=IdentityCorrection(name="Jane"), contact=ContactCorrection(email=taken)
    )
    assert [(body["number"], body["refused"]) for _, body in await shop.events(request_id)] == [(0, "email_taken")]
    assert await shop.events(subject_id) == before
    assert (await shop.sign_in(email)).status_code == 200
    assert await shop.kit.db.fetchval("SELECT count(*) FROM kit.quarantine") == 0


async def test_of_two_corrections_to_one_free_address_the_second_is_refused(shop: Shop) -> None:
    (one, _), (other, _) = await shop.register(), await shop.register()
    free = f"free.{uuid4().hex[:12]}@example.org"
    first = await rectify(shop, one, contact=ContactCorrection(email=free))
    second = await rectify(shop, other, contact=ContactCorrection(email=free))
    refusals = [(await shop.events(each))[0][1]["refused"] for each in (first, second)]
    assert refusals == [None, "email_taken"]


@pytest.mark.fault(15, "a late correction of somebody erased")
async def test_nothing_is_brought_back_for_somebody_unknown_or_erased(shop: Shop) -> None:
    unknown = await rectify(shop, uuid4(), identity=IdentityCorrection(name="Nobody"))
    assert await answers(shop, unknown) == [0]
    subject_id, _ = await shop.register()
    shop.vault.erased |= {key.key_id for name, key in shop.vault.keys.items() if name.subject == subject_id}
    before = await shop.events(subject_id)
    await rectify(shop, subject_id, identity=IdentityCorrection(name="Back again"))
    assert await shop.events(subject_id) == before
