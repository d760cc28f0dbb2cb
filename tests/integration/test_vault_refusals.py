"""What the vault refuses: unknown and moved keys, services without a grant, forged tokens, changed rows, other KEKs."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from deploy.local import keys
from deploy.local.http import open_http
from deploy.local.services import ServiceProcess
from servicekit.core.clock import Clock
from servicekit.core.errors import Forbidden, Gone, Taken, Unavailable, UnknownKey
from servicekit.core.policy import IndexKind, Policy
from servicekit.vault.client import New
from servicekit.vault.leases import KeyName
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.vaults import (  # noqa: F401 - fixtures
    POLICY,
    SYSTEMS,
    World,
    as_json,
    bearer,
    leases,
    module_world,
    names,
    post,
    run_vault,
    vault,
    world,
)

# Written by hand, not taken from the policy: who may open what for which purpose (docs/proofs.md#3-rights-and-grants).
MAY_OPEN = {
    ("account", "identity", "own_access"),
    ("account", "identity", "rights_request"),
    ("account", "contact", "own_access"),
    ("account", "contact", "notification"),
    ("account", "contact", "authentication"),
    ("account", "contact", "rights_request"),
    ("account", "credentials", "authentication"),
    ("account", "behaviour", "own_access"),
    ("account", "behaviour", "personalisation"),
    ("account", "behaviour", "rights_request"),
    ("account", "quarantine", "quarantine_replay"),
    ("order", "delivery", "own_access"),
    ("order", "delivery", "rights_request"),
    ("order", "registration", "own_access"),
    ("order", "registration", "rights_request"),
    ("order", "tracking", "own_access"),
    ("order", "tracking", "rights_request"),
    ("order", "order_record", "own_access"),
    ("order", "order_record", "order_processing"),
    ("order", "order_record", "after_sales"),
    ("order", "order_record", "refund_settlement"),
    ("order", "order_record", "rights_request"),
    ("order", "order_record", "tax"),
    ("order", "payment", "order_processing"),
    ("order", "payment", "refund_settlement"),
    ("order", "payment", "rights_request"),
    ("order", "quarantine", "quarantine_replay"),
    ("logistics-gateway", "delivery", "delivery"),
    ("logistics-gateway", "registration", "delivery"),
    ("privacy", "export", "rights_request"),
    ("privacy", "quarantine", "quarantine_replay"),
}
MAY_SEAL = {
    *((system, name) for system in SYSTEMS if system != "vault" for name in ("quarantine", "export")),
    *(("account", data_class) for data_class in ("identity", "contact", "credentials", "behaviour")),
    *(("order", data_class) for data_class in ("delivery", "registration", "order_record", "payment")),
    ("logistics-gateway", "tracking"),
    *(("privacy", data_class) for data_class in ("identity", "contact", "delivery")),
}
INDEX_KEYS = {
    ("account", "email"),
    ("account", "phone"),
    ("order", "order_number"),
    ("order", "shop_order_number"),
    ("privacy", "email"),
    ("privacy", "phone"),
    ("privacy", "order_number"),
    ("privacy", "shop_order_number"),
}


# --- what is refused ---


@pytest.mark.fault(14, "a key that the vault does not have")
async def test_an_unknown_key_raises_and_never_reads_as_erased(world: World, vault: ServiceProcess) -> None:
    wanted = names(count=2)
    sealing = await world.client(vault, "order").ensure(wanted)
    known, other = leases(wanted, sealing)
    with pytest.raises(UnknownKey):
        await world.client(vault, "logistics-gateway").lease("delivery", [known, other._replace(key_id=uuid4())])


@pytest.mark.attack("a key id is leased under another person, anchor or class", expected="unknown key")
@pytest.mark.parametrize("moved", ["subject", "anchor", "data_class"])
async def test_a_key_asked_for_under_another_name_is_unknown(world: World, vault: ServiceProcess, moved: str) -> None:
    wanted = names("order_record")
    client = world.client(vault, "order")
    (lease,) = leases(wanted, await client.ensure(wanted))
    other: dict[str, Any] = {"subject": uuid4(), "anchor": uuid4(), "data_class": "payment"}
    with pytest.raises(UnknownKey):
        await client.lease("refund_settlement", [lease._replace(**{moved: other[moved]})])


@pytest.mark.attack(
    "a service opens or seals a class that it has no grant for",
    expected="403 in every cell without a grant",
)
async def test_services_open_what_the_hand_written_table_says_and_nothing_else(
    world: World, vault: ServiceProcess
) -> None:
    """L7: every service × class × purpose. A granted one comes as far as the unknown key."""
    policy = Policy.load([POLICY])
    found = set()
    for service in SYSTEMS:
        async with open_http(vault.url, headers=bearer(world.identity(service).token())) as http:
            for data_class in policy.classes:
                for purpose in policy.purposes:
                    key = {"key_id": uuid4(), "subject": uuid4(), "data_class": data_class, "anchor": uuid4()}
                    body = json.dumps({"purpose": purpose, "keys": [key]}, default=str)
                    declared = {"Content-Type": "application/json"}
                    response = await http.post("/v1/keys/lease", content=body, headers=declared)
                    assert response.status_code in (403, 404)
                    if response.status_code == 404:
                        found.add((service, data_class, purpose))
    assert found == MAY_OPEN


@pytest.mark.attack(
    "a service computes or looks up digests without a grant",
    expected="exactly the hand-written tables",
)
async def test_services_seal_and_index_what_the_hand_written_tables_say(world: World, vault: ServiceProcess) -> None:
    policy = Policy.load([POLICY])
    may_seal, index_keys, may_find = set(), set(), set()
    for service in SYSTEMS:
        client = world.client(vault, service)
        for data_class in policy.classes:
            if await is_granted(client.ensure(names(data_class))):
                may_seal.add((service, data_class))
        for kind in get_args(IndexKind):
            if await is_granted(client.index_key(kind)):
                index_keys.add((service, kind))
            if await is_granted(client.find(kind, bytes(32))):
                may_find.add((service, kind))
    assert may_seal == MAY_SEAL
    assert index_keys == INDEX_KEYS
    assert may_find == {pair for pair in INDEX_KEYS if pair[0] in ("privacy", "order")}


async def is_granted(call: Any) -> bool:
    try:
        await call
    except Forbidden:
        return False
    return True


async def test_one_class_without_a_grant_refuses_the_whole_batch(world: World, vault: ServiceProcess) -> None:
    wanted = [*names("delivery"), *names("identity")]
    with pytest.raises(Forbidden):
        await world.client(vault, "order").ensure(wanted)
    assert await world.sql("SELECT 1 FROM keys WHERE subject_id = $1", wanted[0].subject) == []


Forge = Callable[[World], str]
NO_TOKENS = ("no token at all", "..", "a.b.c", "e30.WzFd.e30", "e30.e30.e30")  # WzFd is [1], e30 is {}


def forged(signer: str = "order", **changes: object) -> Forge:
    def make(world: World) -> str:
        now = Clock().now().timestamp()
        claims = {"iss": "order", "aud": "vault", "iat": int(now), "exp": int(now + 50), **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        key = OKPKey.import_key(keys.identity_file(world.folder / "keys", signer).read_bytes())
        return jwt.encode({"alg": "Ed25519"}, claims, key, algorithms=["Ed25519"])

    return make


def unsigned(world: World) -> str:
    _, payload, _ = forged()(world).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{head}.{payload}."


def past(seconds: float) -> int:
    return int(Clock().now().timestamp() - seconds)


@pytest.mark.attack("a forged, expired, unsigned or foreign token at the vault", expected="401")
@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(forged(exp=past(30), iat=past(80)), id="expired"),
        pytest.param(forged(exp=past(-3600)), id="lives too long"),
        pytest.param(forged(exp=None), id="never expires"),
        pytest.param(forged("account"), id="signed by another service"),
        pytest.param(forged(aud="shop"), id="for another audience"),
        pytest.param(forged(iss="nobody"), id="of an unknown service"),
        pytest.param(forged(iss="../identities/order"), id="of a path"),
        pytest.param(unsigned, id="unsigned"),
        pytest.param(lambda world: forged()(world)[:-4] + "AAAA", id="with another signature"),
        *(pytest.param(lambda world, text=text: text, id=text) for text in NO_TOKENS),
        pytest.param(lambda world: keys.staff_token(world.folder / "keys", "support"), id="of a member of staff"),
    ],
)
async def test_a_token_is_refused_that_is(world: World, vault: ServiceProcess, forge: Forge) -> None:
    async with open_http(vault.url) as http:
        good = await http.get("/v1/index-keys?kinds=order_number", headers=bearer(forged()(world)))
        bad = await http.get("/v1/index-keys?kinds=order_number", headers=bearer(forge(world)))
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["type"]) == (401, "/problems/unauthenticated")


@pytest.mark.attack("the vault's routes without a token", expected="401")
async def test_without_a_token_nothing_is_answered(vault: ServiceProcess) -> None:
    async with open_http(vault.url) as http:
        for method, path in (
            ("POST", "/v1/keys/ensure"),
            ("POST", "/v1/keys/lease"),
            ("GET", "/v1/index-keys?kinds=email"),
            ("POST", "/v1/directory/find"),
            ("GET", "/v1/revocations?after=0"),
        ):
            assert (await http.request(method, path)).status_code == 401, path


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"keys": []},
        {"keys": [{"subject": "x", "data_class": "delivery", "anchor": str(uuid4())}]},
        {"keys": [{"subject": str(uuid4()), "data_class": "delivery", "anchor": str(uuid4())}] * 2001},
        {
            "keys": [{"subject": str(uuid4()), "data_class": "delivery", "anchor": str(uuid4())}],
            "index": [{"kind": "order_number", "digest": "A" * 43, "key": 1}],
        },
    ],
)
async def test_a_body_that_is_none_is_refused(world: World, vault: ServiceProcess, body: object) -> None:
    response = await post(world, vault, "order", "/v1/keys/ensure", body)
    assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid")


async def test_a_service_does_not_lease_what_it_sealed_for_the_purpose_of_another(
    world: World, vault: ServiceProcess
) -> None:
    """L7."""
    wanted, client = names(), world.client(vault, "order")
    asked = leases(wanted, await client.ensure(wanted))
    with pytest.raises(Forbidden):
        await client.lease("delivery", asked)


async def test_a_lease_without_a_purpose_is_refused(world: World, vault: ServiceProcess) -> None:
    """L7: there is no default purpose."""
    wanted = names()
    (lease,) = leases(wanted, await world.client(vault, "order").ensure(wanted))
    body = {"keys": [{**as_json(lease.name), "key_id": str(lease.key_id)}]}
    refused = await post(world, vault, "logistics-gateway", "/v1/keys/lease", body)
    granted = await post(world, vault, "logistics-gateway", "/v1/keys/lease", {**body, "purpose": "delivery"})
    assert (refused.status_code, granted.status_code) == (422, 200)


# --- keys at rest ---


@pytest.mark.attack("wrapped keys are changed in the vault's database", expected="refused, and never read as erased")
@pytest.mark.fault(14, "a wrapped key that was changed")
async def test_a_wrapped_key_that_was_changed_is_refused_and_never_erased(world: World, vault: ServiceProcess) -> None:
    wanted = names()
    sealing = await world.client(vault, "order").ensure(wanted)
    flip = "UPDATE keys SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) WHERE key_id = $1"
    await world.sql(flip, sealing[0].key_id)
    with pytest.raises(Unavailable):
        await world.client(vault, "logistics-gateway", patience=0.3).lease("delivery", leases(wanted, sealing))
    response = await post(world, vault, "order", "/v1/keys/ensure", {"keys": [as_json(wanted[0])]})
    assert (response.status_code, response.json()["type"]) == (503, "/problems/wrong_kek")


@pytest.mark.attack("wrapped keys are swapped in the vault's database", expected="refused")
async def test_wrapped_keys_that_were_swapped_between_rows_are_refused(world: World, vault: ServiceProcess) -> None:
    wanted = names(count=2)
    sealing = await world.client(vault, "order").ensure(wanted)
    swap = "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE key_id = $2) WHERE key_id = $1"
    await world.sql(swap, sealing[0].key_id, sealing[1].key_id)
    with pytest.raises(Unavailable):
        await world.client(vault, "logistics-gateway", patience=0.3).lease("delivery", leases(wanted, sealing)[:1])


@pytest.mark.attack("keys are read from the vault's database", expected="no key in clear")
async def test_no_key_lies_in_the_database_in_clear(world: World, vault: ServiceProcess) -> None:
    name = names()[0]
    response = await post(world, vault, "order", "/v1/keys/ensure", {"keys": [as_json(name)]})
    raw = base64.urlsafe_b64decode(response.json()["keys"][0]["key"] + "=")
    (row,) = await world.sql("SELECT wrapped FROM keys WHERE subject_id = $1", name.subject)
    assert len(raw) == 32
    assert raw not in row["wrapped"]


@pytest.mark.fault(14, "a vault with another KEK")
def test_a_vault_with_another_kek_does_not_start(world: World, vault: ServiceProcess, tmp_path: Path) -> None:
    keys.write_keys(tmp_path / "keys", SYSTEMS, ["meridian"])
    done = run_vault(world, "all", {"KEK_DIR": str(tmp_path / "keys" / "kek"), "HTTP_PORT": "0", "HEALTH_PORT": "0"})
    assert done.returncode == 1
    assert "is not the KEK of this database" in done.stdout + done.stderr


def test_a_kek_that_others_can_read_is_refused(world: World, vault: ServiceProcess, tmp_path: Path) -> None:
    keys.write_keys(tmp_path / "keys", SYSTEMS, ["meridian"])
    (tmp_path / "keys" / "kek" / "epoch-1.key").chmod(0o644)
    done = run_vault(world, "all", {"KEK_DIR": str(tmp_path / "keys" / "kek"), "HTTP_PORT": "0", "HEALTH_PORT": "0"})
    assert done.returncode == 1
    assert "can be read by other users" in done.stdout + done.stderr


def test_the_vault_leaves_no_core_dump(vault: ServiceProcess) -> None:
    limits = Path(f"/proc/{vault.pid}/limits").read_text()
    (core,) = (line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core == ["0", "0"]


# --- new people and new anchors ---


async def test_a_key_has_the_maker_that_asked_first(world: World, vault: ServiceProcess) -> None:
    """The privacy service seals a correction under a key of the account service: the maker stays."""
    (name,) = names("contact")
    (made,) = await world.client(vault, "account").ensure([name])
    (again,) = await world.client(vault, "privacy").ensure([name])
    assert again.key_id == made.key_id
    assert await world.sql("SELECT maker FROM keys WHERE key_id = $1", made.key_id) == [("account",)]


@pytest.mark.attack("make a new person under the id of somebody", expected="409 taken, and no key")
@pytest.mark.fault(39, "a person is made anew under a consignee's id")
async def test_a_new_person_is_nobody_whom_another_service_knows(world: World, vault: ServiceProcess) -> None:
    (consignee,) = names("delivery")
    await world.client(vault, "order").ensure([consignee])
    account = world.client(vault, "account")
    stolen = KeyName(consignee.subject, "contact", consignee.subject)
    with pytest.raises(Taken):
        await account.ensure([stolen], new=New(frozenset([consignee.subject])))
    assert await world.sql("SELECT maker FROM keys WHERE subject_id = $1", consignee.subject) == [("order",)]
    # A retry of the one that made the person finds its key.
    again = New(frozenset([consignee.subject]))
    assert len(await world.client(vault, "order").ensure([consignee], new=again)) == 1


async def test_what_had_a_key_that_is_gone_is_not_new(world: World, vault: ServiceProcess) -> None:
    """A key destroyed, a fence on a class or on everything: nothing is made; anew, without the word, it is."""
    client = world.client(vault, "order")
    first, second, third = names("delivery", 3)
    for name in (first, second, third):
        await client.ensure([name], new=New(frozenset([name.subject])))
    await world.sql("UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE subject_id = $1", first.subject)
    await world.sql(
        "INSERT INTO fences (subject_id, data_class, generation) VALUES ($1, 'delivery', 1)",
        second.subject,
    )
    await world.sql("INSERT INTO fences (subject_id) VALUES ($1)", third.subject)
    count = await world.sql("SELECT count(*) FROM keys")
    for name in (first, second, third):
        with pytest.raises(Gone):
            await client.ensure([name], new=New(frozenset([name.subject])))
    for name in (first, second):
        with pytest.raises(Gone):
            await client.ensure([name], new=New())
    other = KeyName(first.subject, "delivery", uuid4())
    assert await world.sql("SELECT count(*) FROM keys") == count
    assert len(await client.ensure([other], new=New())) == 1  # another order of theirs
    assert len(await client.ensure([second])) == 1


async def test_one_of_many_that_is_not_new_fails_alone(world: World, vault: ServiceProcess) -> None:
    client = world.client(vault, "order")
    wanted = names("delivery", 6)
    await client.ensure(wanted[:1])
    await world.sql("UPDATE keys SET state = 'destroyed', wrapped = NULL WHERE subject_id = $1", wanted[0].subject)
    answers = await asyncio.gather(*(client.ensure([name], new=New()) for name in wanted), return_exceptions=True)
    assert [isinstance(answer, Gone) for answer in answers] == [True] + [False] * 5
