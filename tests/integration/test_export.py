"""Packages of access requests, over HTTP on real Postgres: what is in one, and that it is fetched once."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from event_contracts.privacy import ExportHoldings
from privacy_service.app import SERVICE
from privacy_service.export import packages
from privacy_service.export.handlers import fetch
from privacy_service.export.http import PackageResponse
from privacy_service.export.store import MOST_LATE_ROUNDS
from servicekit.core import faults
from servicekit.core.clock import Clock
from servicekit.core.faults import Fault, InjectedFault
from servicekit.core.health import Health
from servicekit.db.postgres import Tx
from servicekit.http.app import make_app
from tests.support.exports import Held, Package, destroy_ended, link, make_ready, open_access, part, parts_of, seal
from tests.support.infra import postgres_server
from tests.support.rights import Shop, shop, show

__all__ = ["postgres_server", "shop"]

FORMULA = '=HYPERLINK("https://evil.example";"Your gift")'
TAG = "<script>alert(1)</script>"


def held_of(subject: UUID, order: UUID) -> Held:
    account = {"subject_id": str(subject), "guest": False, "identity": {"name": FORMULA}, "contact": {"phone": "+4912"}}
    placed = {"order_id": str(order), "buyer_id": str(subject), "status": "delivered"}
    return {
        "account": [("accounts", [account])],
        "order": [
            ("orders", [placed]),
            (
                "order_records",
                [{"order_id": str(order), "record": {"lines": [{"sku": "A-1", "count": 2}], "note": TAG}}],
            ),
            ("order_payments", [{"order_id": str(order), "payment": {"token": "tok_1"}}]),
        ],
    }


async def test_a_package_has_everything_readable_and_hashed(shop: Shop) -> None:
    """R2: JSON with schemas, CSV, an index, disclosures, staff looks, and a manifest."""
    subject, order = uuid4(), uuid4()
    await _disclose(shop, subject, order)
    async with shop.client() as client:
        looked = await client.get(f"/v1/subjects/{subject}/inventory", headers=shop.staff())
        assert looked.status_code == 200, looked.text
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, order))
        answer = await client.get(await link(shop, client, request_id))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["cache-control"] == "no-store"
    package = Package(answer.content)
    assert package.check_hashes() > 8
    accounts = package.json("data/account/accounts.json")
    assert (accounts["row_count"], accounts["rows"][0]["identity"]["name"]) == (1, FORMULA)
    assert package.json(accounts["schemas"]["identity"])["title"] == "Identity"
    (row,) = package.csv("data/account/accounts.csv")
    assert (row["identity.name"], row["contact.phone"]) == (f"'{FORMULA}", "'+4912")
    index = package.text("index.html")
    assert TAG not in index
    assert "&lt;script&gt;" in index
    (disclosed,) = package.json("disclosures.json")
    assert (disclosed["recipient"], disclosed["fields"]) == ("meridian", ["consignee.city", "consignee.name"])
    looks = package.json("staff_looks.json")
    assert [look["kind"] for look in looks] == ["inventory", "export_link"]
    assert not {"staff_id", "look_id"} & looks[0].keys()


async def test_portability_is_what_the_person_provided(shop: Shop) -> None:
    """Article 20: no payment token, no ids and times of ours, no looks."""
    subject, order = uuid4(), uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject, kind="portability")
        await make_ready(shop, held_of(subject, order))
        package = Package((await client.get(await link(shop, client, request_id))).content)
    names = set(package.zip.namelist())
    assert {"data/account/accounts.json", "data/order/order_records.json"} <= names
    assert not {"data/order/orders.json", "data/order/order_payments.json", "staff_looks.json"} & names
    assert package.json("data/account/accounts.json")["rows"][0].keys() == {"identity", "contact"}


async def test_a_package_is_fetched_once_and_then_its_key_is_destroyed(shop: Shop) -> None:
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        path = await link(shop, client, request_id)
        assert await shop.kit.db.fetchval("SELECT count(*) FROM rights_export_parts WHERE content IS NOT NULL") == 4
        await destroy_ended(shop)
        assert shop.vault.calls == []
        first = await client.get(path)
        again = await client.get(path)
        assert (first.status_code, again.status_code) == (200, 404)
        late = await client.post(f"/v1/requests/{request_id}/link", headers=shop.staff())
        assert late.status_code == 409
        await destroy_ended(shop)
        assert list(shop.vault.states.values()) == ["destroyed"]
        assert await shop.kit.db.fetchval("SELECT count(*) FROM rights_export_parts") == 0
        await shop.tick(seconds=1)
        await shop.settle()
        state = await show(shop, client, str(request_id))
    assert (state["status"], state["reason"]) == ("completed", "fulfilled")
    leaf = await shop.kit.db.fetchval("SELECT count(*) FROM evidence_leaves WHERE body LIKE '%key_destruction%'")
    assert leaf == 1
    calls = list(shop.vault.calls)
    await destroy_ended(shop)
    assert shop.vault.calls == calls


async def test_several_people_share_a_package_that_staff_alone_can_link(shop: Shop) -> None:
    first, second = uuid4(), uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, first, second)
        await make_ready(shop, held_of(first, uuid4()))
        own = await client.post(f"/v1/me/requests/{request_id}/link", headers=shop.customer(first))
        assert own.status_code == 404
        package = Package((await client.get(await link(shop, client, request_id))).content)
        assert package.json("data/account/accounts.json")["row_count"] == 2
        await destroy_ended(shop)
        assert list(shop.vault.states.values()) == ["destroyed"] * 2
        await shop.tick(seconds=1)
        await shop.settle()
        assert (await show(shop, client, str(request_id)))["status"] == "completed"


@pytest.mark.fault(25, "a package is fetched twice at once")
async def test_two_fetches_at_once_have_one_package(shop: Shop) -> None:
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        path = await link(shop, client, request_id)
        answers = await asyncio.gather(*(client.get(path) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, *[404] * 5]


async def test_a_link_is_nobody_elses_and_ends(shop: Shop) -> None:
    """Unknown, malformed, replaced and expired links look the same; a customer gets one for their own export only."""
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        own = f"/v1/me/requests/{request_id}/link"
        early = await client.post(f"/v1/requests/{request_id}/link", headers=shop.staff())
        await make_ready(shop, held_of(subject, uuid4()))
        replaced = await link(shop, client, request_id)
        path = (await client.post(own, headers=shop.customer(subject))).json()["url_path"]
        other = await client.post(own, headers=shop.customer(uuid4()))
        nobody = await client.post(own)
        unknown = await client.get("/v1/exports/" + "A" * 43)
        malformed = await client.get("/v1/exports/" + "A" * 44)
        wrong = [replaced, path[:-1] + ("A" if path[-1] != "A" else "B")]
        gone = [(await client.get(each)).status_code for each in wrong]
        assert (early.status_code, other.status_code, nobody.status_code) == (409, 404, 401)
        assert (unknown.status_code, malformed.status_code, gone) == (404, 422, [404, 404])
        await shop.tick(hours=25)
        assert (await client.get(path)).status_code == 404
        assert (await client.get(await link(shop, client, request_id))).status_code == 200
    assert path.encode() not in await _everything(shop)


async def test_a_package_that_nobody_fetches_expires(shop: Shop) -> None:
    """L8: the policy keeps an export for seven days."""
    async with shop.client() as client:
        request_id = await open_access(shop, client, uuid4())
        await make_ready(shop, held_of(uuid4(), uuid4()))
        path = await link(shop, client, request_id)
        await shop.tick(days=6)
        await destroy_ended(shop)
        assert shop.vault.calls == []
        await shop.tick(days=1, seconds=1)
        await destroy_ended(shop)
        assert list(shop.vault.states.values()) == ["destroyed"]
        assert (await client.get(path)).status_code == 404
        await shop.settle()
        assert (await show(shop, client, str(request_id)))["status"] == "completed"


@pytest.mark.fault(16, "a download breaks off")
async def test_a_download_that_breaks_costs_its_link_and_nothing_else(shop: Shop) -> None:
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        used = await link(shop, client, request_id)
        broken: Any = (await fetch(shop.kit, used.rpartition("/")[2])).chunks
        assert await anext(broken)
        await broken.aclose()
        await destroy_ended(shop)
        assert shop.vault.calls == []
        assert (await client.get(used)).status_code == 404
        assert (await client.get(await link(shop, client, request_id))).status_code == 200


@pytest.mark.fault(17, "a crash between the end of an export's key and its record")
@pytest.mark.parametrize("point", ["export.revoked", "export.destroyed", "tx.commit", "tx.committed"])
async def test_ending_an_export_may_be_cut_at_any_point(shop: Shop, point: str) -> None:
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        assert (await client.get(await link(shop, client, request_id))).status_code == 200
    hits = 2 if point.startswith("tx") else 1  # the first transaction of a run ends what has expired
    faults.arm({point: Fault("error", 0, hits)})
    try:
        with pytest.raises(InjectedFault):
            await destroy_ended(shop)
    finally:
        faults.arm({})
    await destroy_ended(shop)
    ended = await shop.kit.db.fetchrow("SELECT * FROM rights_exports")
    assert ended is not None
    assert (ended["ended_as"], ended["destroyed_at"] is not None) == ("fetched", True)
    assert list(shop.vault.states.values()) == ["destroyed"]
    leaves = await shop.kit.db.fetchval("SELECT count(*) FROM evidence_leaves WHERE body LIKE '%key_destruction%'")
    assert leaves == 1


@pytest.mark.fault(6, "parts of an export, doubled and shuffled")
async def test_parts_come_twice_in_any_order_and_of_several_attempts(shop: Shop) -> None:
    """A crash at a participant begins the next attempt; a package has one whole attempt of each system."""
    subject = uuid4()
    rows = [("accounts", [{"identity": {"name": str(n)}}]) for n in range(3)]
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await shop.work()
        (command,) = await shop.asked()
        assert isinstance(command, ExportHoldings)
        broken = await parts_of(shop, command, {"account": rows})
        await shop.hear(*broken[:2])  # and then it crashes
        whole = await parts_of(shop, command, {"account": rows}, attempt=2)
        await shop.hear(*reversed(whole))
        await shop.hear(*whole)
        await shop.settle()
        package = Package((await client.get(await link(shop, client, request_id))).content)
    assert package.json("data/account/accounts.json")["row_count"] == 3


async def test_a_late_part_opens_no_key_that_stays(shop: Shop) -> None:
    """A system that hands over again after the end gets a key of the next generation: it is destroyed as well."""
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        assert (await client.get(await link(shop, client, request_id))).status_code == 200
    await destroy_ended(shop)
    command = ExportHoldings(request_id=request_id, subject_id=subject)
    late = await seal(shop, command, "accounts", [{"identity": {"name": "late"}}])
    await shop.hear(part(command, "account", 2, 1, late, 1))
    assert await shop.kit.db.fetchval("SELECT count(*) FROM rights_export_parts") == 0
    await destroy_ended(shop)
    assert shop.vault.states[late.key_id] == "destroyed"


@pytest.mark.attack("a participant names ended exports again and again", expected="bounded, and only with its people")
async def test_late_parts_open_no_other_ended_export_and_none_for_ever(shop: Shop) -> None:
    subject, other = uuid4(), uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        assert (await client.get(await link(shop, client, request_id))).status_code == 200
    await destroy_ended(shop)
    foreign = ExportHoldings(request_id=request_id, subject_id=other)
    await shop.hear(part(foreign, "account", 2, 1, await seal(shop, foreign, "accounts", []), 1))
    ended = "SELECT destroyed_at IS NOT NULL FROM rights_exports"
    assert await shop.kit.db.fetchval(ended), "a part about somebody else opened an ended export"
    command = ExportHoldings(request_id=request_id, subject_id=subject)
    for attempt in range(2, MOST_LATE_ROUNDS + 2):
        await shop.hear(part(command, "account", attempt, 1, await seal(shop, command, "accounts", []), 1))
        assert not await shop.kit.db.fetchval(ended)
        await destroy_ended(shop)
    late = await seal(shop, command, "accounts", [])
    await shop.hear(part(command, "account", 99, 1, late, 1))
    assert await shop.kit.db.fetchval(ended), "late parts open an ended export for ever"


@pytest.mark.fault(16, "an erasure during an export that is under way")
async def test_a_part_whose_key_is_revoked_is_no_obstacle(shop: Shop) -> None:
    """The person was erased while the part was on its way: the batch is applied without it."""
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await shop.work()
        (command,) = await shop.asked()
        assert isinstance(command, ExportHoldings)
        parts = await parts_of(shop, command, held_of(subject, uuid4()))
        key = shop.vault.keys[subject, "export", request_id]
        await shop.sql("INSERT INTO kit.revoked_keys (key_id, number, subject_id) VALUES ($1, 1, $2)", key, subject)
        await shop.hear(*parts)
        await shop.settle()
        package = Package((await client.get(await link(shop, client, request_id))).content)
    assert not [name for name in package.zip.namelist() if name.startswith("data/")]


@pytest.mark.fault(16, "an erasure between an export's link and its download")
async def test_data_that_is_erased_after_the_link_was_made_breaks_no_file(shop: Shop) -> None:
    subject = uuid4()
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        path = await link(shop, client, request_id)
        vault: Any = shop.kit.vault
        vault.erased.add(shop.vault.keys[subject, "export", request_id])
        answer = await client.get(path)
    assert answer.status_code == 409
    assert "Open a new request" in answer.json()["detail"]


async def test_a_package_that_cannot_be_finished_breaks_off(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data is erased while it is sent: what arrives is no whole file, and the export is not over."""
    subject = uuid4()
    monkeypatch.setattr(packages, "CHUNK", 1)
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        token = (await link(shop, client, request_id)).rpartition("/")[2]
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            vault: Any = shop.kit.vault
            vault.erased.add(shop.vault.keys[subject, "export", request_id])

        scope = {"type": "http", "method": "GET", "path": "/", "asgi": {"spec_version": "2.4"}}
        await PackageResponse(await fetch(shop.kit, token))(scope, receive, send)
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    assert all(message["more_body"] for message in sent[1:])
    assert await shop.kit.db.fetchval("SELECT ended_at FROM rights_exports") is None


@pytest.mark.fault(35, "a client stops reading its package")
@pytest.mark.attack("stop reading a download", expected="no erasure waits for it, and it breaks off")
async def test_a_client_that_stops_reading_holds_no_erasure_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it stands still no work with a key is in progress; what was erased meanwhile is not sent when it goes on."""
    subject, works = uuid4(), shop.kit.works
    monkeypatch.setattr(packages, "CHUNK", 1)
    async with shop.client() as client:
        request_id = await open_access(shop, client, subject)
        await make_ready(shop, held_of(subject, uuid4()))
        token = (await link(shop, client, request_id)).rpartition("/")[2]
    reads, goes_on = asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if sent and not goes_on.is_set():
            reads.set()
            await goes_on.wait()  # as a server waits until the connection takes more
        if message.get("body"):
            sent.append(message["body"])

    health = Health("privacy", "api", "0", shop.kit.clock)
    assert SERVICE.router is not None
    app = make_app(shop.kit.settings, Clock(), health, [SERVICE.router(shop.kit)], work=shop.kit.works)
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": f"/v1/exports/{token}", "headers": []}
    scope |= {"query_string": b"", "asgi": {"version": "3.0", "spec_version": "2.4"}, "root_path": "", "scheme": "http"}
    download = asyncio.create_task(app(scope, receive, send))
    await reads.wait()
    is_idle = works.has_ended(works.mark)
    vault: Any = shop.kit.vault
    vault.erased.add(shop.vault.keys[subject, "export", request_id])
    goes_on.set()
    await download
    assert is_idle, "an erasure waits for a client that does not read"
    assert len(sent) == 1, "data was sent after it was erased"
    assert await shop.kit.db.fetchval("SELECT ended_at FROM rights_exports") is None


async def _disclose(shop: Shop, subject: UUID, order: UUID) -> None:
    async def work(tx: Tx) -> None:
        await tx.execute(
            "INSERT INTO recipients VALUES ($1, $2, 'delivery', 'meridian', 'meridian-us', 1, $3, $4, $4)",
            subject,
            order,
            ["consignee.city", "consignee.name"],
            shop.clock.now(),
        )

    await shop.kit.run_tx("test", work)


async def _everything(shop: Shop) -> bytes:
    """All that stands in the tables of exports."""
    found = b""
    for table in ("rights_exports", "rights_export_links", "rights_export_subjects", "rights_history"):
        rows = await shop.kit.db.fetch(f"SELECT * FROM {table}")
        found += repr([tuple(row) for row in rows]).encode()
    return found
