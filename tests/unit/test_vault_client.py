"""What the vault's client keeps, for how long, and what it believes of a reply. The vault is a fake behind the real HTTP client."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from event_contracts import Erased
from servicekit.core.clock import Clock, FakeClock
from servicekit.core.errors import Fenced, Forbidden, TooMany, Unavailable, UnknownKey
from servicekit.vault.client import IndexEntry, KeyName, LeaseName, ServiceIdentity, VaultClient
from servicekit.vault.token import SealingKey

PEM = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
ASKED = LeaseName(uuid4(), uuid4(), "delivery", uuid4())


@dataclass
class FakeVault:
    """Answers every request with what it was told, and remembers the requests."""

    incarnation: str = "first"
    revision: int = 0
    states: dict[UUID, str] = field(default_factory=dict)
    failures: list[Callable[[], httpx.Response]] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.failures:
            return self.failures.pop(0)()
        head = {"incarnation": self.incarnation, "revision": self.revision, "lease_seconds": 60}
        answer = self._lease if request.url.path.endswith("lease") else self._ensure
        response = httpx.Response(
            200, json={**head, "keys": [answer(key) for key in json.loads(request.content)["keys"]]}
        )
        self.before_answer()
        return response

    def _ensure(self, key: dict[str, Any]) -> dict[str, Any]:
        return {"key_id": str(uuid4()), "generation": 1, "key": _text(bytes(32))}

    def _lease(self, key: dict[str, Any]) -> dict[str, Any]:
        state = self.states.get(UUID(key["key_id"]), "active")
        return {"key_id": key["key_id"], "state": state} | ({"key": _text(bytes(32))} if state == "active" else {})


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(vault: FakeVault, clock: FakeClock) -> VaultClient:
    return make_client(vault, clock)


def make_client(vault: FakeVault, clock: Clock, cached_keys: int = 100) -> VaultClient:
    identity = ServiceIdentity("order", PEM, clock)
    transport = httpx.MockTransport(vault)
    return VaultClient("http://vault", identity, clock, cached_keys=cached_keys, patience=0.4, transport=transport)


async def test_a_lease_is_kept_and_not_asked_for_again(client: VaultClient, vault: FakeVault) -> None:
    assert await client.lease("delivery", [ASKED]) == await client.lease("delivery", [ASKED])
    assert len(vault.requests) == 1


async def test_keys_for_several_at_once_are_one_request_and_index_entries_stay_with_their_keys(
    client: VaultClient, vault: FakeVault
) -> None:
    names = [[KeyName(uuid4(), "contact", uuid4()) for _ in range(2)] for _ in range(4)]
    index = [[IndexEntry("email", bytes([number]), 1)] for number in range(4)]
    found = await asyncio.gather(*map(client.ensure, names, index))
    (asked,) = (json.loads(request.content) for request in vault.requests)
    assert [UUID(key["subject"]) for key in asked["keys"]] == [name.subject for each in names for name in each]
    assert [entry["key"] for entry in asked["index"]] == [1, 3, 5, 7]
    assert [await client.ensure(each) for each in names] == found
    assert len(vault.requests) == 1


@pytest.mark.fault(21, "a lease whose answer was slow")
async def test_the_lease_runs_from_the_moment_of_the_request(
    client: VaultClient, vault: FakeVault, clock: FakeClock
) -> None:
    vault.before_answer = lambda: clock.tick(20)
    await client.lease("delivery", [ASKED])
    clock.tick(39)
    assert client.is_live("delivery", [ASKED.key_id])
    clock.tick(1)
    assert not client.is_live("delivery", [ASKED.key_id])
    await client.lease("delivery", [ASKED])
    assert len(vault.requests) == 2


@pytest.mark.parametrize(
    "other", [{"subject": uuid4()}, {"anchor": uuid4()}, {"data_class": "payment"}], ids=["subject", "anchor", "class"]
)
async def test_a_kept_key_is_not_used_for_another_name(
    client: VaultClient, vault: FakeVault, other: dict[str, Any]
) -> None:
    await client.lease("delivery", [ASKED])
    await client.lease("delivery", [ASKED._replace(**other)])
    assert len(vault.requests) == 2


async def test_a_kept_key_is_not_used_for_another_purpose(client: VaultClient, vault: FakeVault) -> None:
    await client.lease("delivery", [ASKED])
    await client.lease("own_access", [ASKED])
    assert [json.loads(request.content)["purpose"] for request in vault.requests] == ["delivery", "own_access"]


async def test_a_key_to_seal_with_opens_nothing(client: VaultClient, vault: FakeVault) -> None:
    (key,) = await client.ensure([ASKED.name])
    await client.lease("delivery", [ASKED._replace(key_id=key.key_id)])
    assert len(vault.requests) == 2


async def test_index_entries_always_reach_the_vault(client: VaultClient, vault: FakeVault) -> None:
    await client.ensure([ASKED.name])
    await client.ensure([ASKED.name])
    await client.ensure([ASKED.name], [IndexEntry("order_number", bytes(32), 0)])
    assert [len(json.loads(request.content)["index"]) for request in vault.requests] == [0, 1]


async def test_the_order_of_the_answer_is_that_of_the_question_whatever_is_kept(client: VaultClient) -> None:
    wanted = [LeaseName(uuid4(), uuid4(), "delivery", uuid4()) for _ in range(5)]
    await client.lease("delivery", wanted[1:3])
    found = await client.lease("delivery", wanted)
    assert [key.key_id for key in found] == [lease.key_id for lease in wanted]


async def test_large_batches_are_sent_in_parts(client: VaultClient, vault: FakeVault) -> None:
    names = [KeyName(uuid4(), "delivery", uuid4()) for _ in range(2500)]
    assert len(await client.ensure(names)) == 2500
    assert [len(json.loads(request.content)["keys"]) for request in vault.requests] == [2000, 500]


async def test_the_cache_is_bounded(vault: FakeVault, clock: FakeClock) -> None:
    """L12."""
    client = make_client(vault, clock, cached_keys=10)
    wanted = [LeaseName(uuid4(), uuid4(), "delivery", uuid4()) for _ in range(50)]
    await client.lease("delivery", wanted)
    assert [client.is_live("delivery", [lease.key_id]) for lease in wanted] == [False] * 40 + [True] * 10


async def test_fenced_and_destroyed_are_erased_and_leave_the_cache(client: VaultClient, vault: FakeVault) -> None:
    (key,) = await client.lease("delivery", [ASKED])
    assert isinstance(key, SealingKey)
    for state in ("fenced", "destroyed"):
        vault.states[ASKED.key_id] = state
        assert await client.lease("own_access", [ASKED]) == [Erased(ASKED.key_id)]
    assert not client.is_live("delivery", [ASKED.key_id])


@pytest.mark.fault(14, "a vault's answer with a state that nobody knows")
async def test_a_state_that_is_not_known_is_never_read_as_erased(client: VaultClient, vault: FakeVault) -> None:
    vault.states[ASKED.key_id] = "sleeping"
    with pytest.raises(Unavailable):
        await client.lease("delivery", [ASKED])


async def test_a_revocation_drops_the_key_at_once(client: VaultClient, vault: FakeVault) -> None:
    (ensured,) = await client.ensure([ASKED.name])
    await client.lease("delivery", [ASKED])
    client.apply("first", 0, [ASKED.key_id, ensured.key_id])
    assert not client.is_live("delivery", [ASKED.key_id])
    await client.ensure([ASKED.name])
    assert len(vault.requests) == 3


@pytest.mark.fault(12, "a vault that is behind the list answers")
async def test_a_reply_from_behind_the_applied_list_is_discarded(client: VaultClient, vault: FakeVault) -> None:
    """Its snapshot may hold a key that this process has dropped already (docs/protocols.md#asking-the-vault)."""
    await client.lease("delivery", [ASKED])
    client.apply("first", 7, [ASKED.key_id])
    vault.revision = 6
    with pytest.raises(TimeoutError):  # the fake clock stands still, so the client would ask for ever
        await asyncio.wait_for(client.lease("delivery", [ASKED]), 0.3)
    assert len(vault.requests) > 2
    vault.revision = 7
    assert len(await client.lease("delivery", [ASKED])) == 1


@pytest.mark.fault(12, "a vault that was restored answers")
async def test_a_new_incarnation_drops_all_leases(client: VaultClient, vault: FakeVault) -> None:
    await client.lease("delivery", [ASKED])
    client.apply("first", 7, [])
    vault.incarnation, vault.revision = "second", 0
    other = LeaseName(uuid4(), uuid4(), "delivery", uuid4())
    await client.lease("delivery", [other])
    assert not client.is_live("delivery", [ASKED.key_id])
    assert client.is_live("delivery", [other.key_id])


async def test_a_reply_of_the_former_incarnation_that_comes_late_is_discarded(
    client: VaultClient, vault: FakeVault
) -> None:
    await client.lease("delivery", [ASKED])

    def restored_meanwhile() -> None:
        client.apply("second", 0, [])
        vault.incarnation, vault.before_answer = "second", lambda: None

    vault.before_answer = restored_meanwhile
    other = LeaseName(uuid4(), uuid4(), "delivery", uuid4())
    await client.lease("delivery", [other])
    assert len(vault.requests) == 3


def _problem(status: int, code: str, **headers: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, json={"type": f"/problems/{code}"}, headers=headers)


def _broken() -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.fault(14, "the vault refuses")
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (_problem(403, "forbidden"), Forbidden),
        (_problem(404, "unknown_key"), UnknownKey),
        (_problem(409, "fenced"), Fenced),
        (_problem(401, "unauthenticated"), Unavailable),
        (_problem(404, "not_found"), Unavailable),
        (_problem(500, "internal"), Unavailable),
        (lambda: httpx.Response(200, text="<html>"), Unavailable),
        (lambda: httpx.Response(200, json={"keys": []}), Unavailable),
        (lambda: httpx.Response(404, text="not found"), Unavailable),
    ],
)
async def test_a_refusal_is_a_typed_error_and_never_an_erasure(
    client: VaultClient, vault: FakeVault, failure: Callable[[], httpx.Response], error: type[Exception]
) -> None:
    vault.failures = [failure]
    with pytest.raises(error):
        await client.lease("delivery", [ASKED])
    assert len(vault.requests) == 1


async def test_a_quota_says_when_to_come_back(client: VaultClient, vault: FakeVault) -> None:
    vault.failures = [_problem(429, "too_many", **{"Retry-After": "17"})]
    with pytest.raises(TooMany) as refused:
        await client.lease("delivery", [ASKED])
    assert refused.value.retry_after == 17


@pytest.mark.fault(19, "the vault is away for a moment")
async def test_a_vault_that_comes_back_in_time_is_not_noticed(client: VaultClient, vault: FakeVault) -> None:
    vault.failures = [_broken, _problem(503, "unavailable")]
    assert len(await client.lease("delivery", [ASKED])) == 1
    assert len(vault.requests) == 3


@pytest.mark.fault(19, "the vault stays away")
async def test_without_a_vault_it_fails_closed_after_its_patience(vault: FakeVault) -> None:
    """L11."""
    client = make_client(vault, Clock())
    vault.failures = [_broken] * 100
    with pytest.raises(Unavailable):
        await client.ensure([ASKED.name])
    assert 2 <= len(vault.requests) <= 10


async def test_the_token_is_renewed_before_it_ends(client: VaultClient, vault: FakeVault, clock: FakeClock) -> None:
    await client.lease("delivery", [ASKED])
    clock.tick(29)
    await client.lease("own_access", [ASKED])
    clock.tick(1)
    await client.lease("after_sales", [ASKED])
    first, second, third = (request.headers["authorization"] for request in vault.requests)
    assert first == second
    assert second != third


async def test_closing_forgets_all_keys(client: VaultClient) -> None:
    await client.lease("delivery", [ASKED])
    await client.close()
    assert not client.is_live("delivery", [ASKED.key_id])


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
