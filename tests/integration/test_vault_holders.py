"""Who holds keys of the vault and when they are done, and who may revoke at all, on a real PostgreSQL."""
# ruff: noqa: F811 - fixtures are imported, and named again as parameters

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from deploy.local.services import ServiceProcess
from servicekit.core.clock import Clock
from servicekit.core.errors import Unavailable
from servicekit.vault.client import VaultClient
from tests.support.infra import postgres_server  # noqa: F401 - a fixture
from tests.support.revoking import Asking, Case, of_one_person
from tests.support.vaults import (  # noqa: F401 - fixtures
    POLICY,
    SYSTEMS,
    World,
    leases,
    module_world,
    vault,
    world,
)


@pytest.fixture
def asking(world: World, vault: ServiceProcess) -> Asking:
    return Asking(world, vault)


# --- drained ---


async def test_a_holder_is_waited_for_until_it_says_that_its_work_has_ended(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    keys = await asking.ensure(name)
    holder = asking.world.client(asking.process, "logistics-gateway")
    await holder.lease("delivery", leases([name], keys))
    (answer,) = await asking.revoke(Case(name.subject))
    number = answer["number"]
    assert ("logistics-gateway", str(holder.holder_id)) in await holders(asking, number)
    await holder.revocations(number - 1, 0, done=number - 1)
    assert ("logistics-gateway", str(holder.holder_id)) in await holders(asking, number)
    page = await holder.revocations(number - 1, 0, done=number)
    assert [(entry.number, entry.subject) for entry in page.entries] == [(number, name.subject)]
    assert ("logistics-gateway", str(holder.holder_id)) not in await holders(asking, number)


async def test_a_holder_that_signed_off_is_not_waited_for(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    holder = asking.world.client(asking.process, "order")
    await holder.ensure([name])
    before = ("order", str(holder.holder_id))
    (answer,) = await asking.revoke(Case(name.subject))
    assert before in await holders(asking, answer["number"])
    await holder.sign_off()
    assert before not in await holders(asking, answer["number"])


async def test_a_holder_whose_lease_is_over_is_not_waited_for(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    holder = asking.world.client(asking.process, "order")
    await holder.ensure([name])
    (answer,) = await asking.revoke(Case(name.subject))
    (waiting,) = [
        each for each in await asking.waiting_for(answer["number"]) if each["holder"] == str(holder.holder_id)
    ]
    assert waiting["done"] < answer["number"]
    over = "UPDATE holders SET lease_until = clock_timestamp() - interval '1 ms' WHERE holder = $1"
    await asking.world.sql(over, holder.holder_id)
    assert ("order", str(holder.holder_id)) not in await holders(asking, answer["number"])


@pytest.mark.fault(34, "a holder renews its leases and never reports")
@pytest.mark.attack("renew leases and never report", expected="erasures wait for the leases from before the entry")
async def test_a_holder_that_renews_and_never_reports_holds_up_nothing_for_ever(world: World, tmp_path: Path) -> None:
    """Leases last 5 s here. It asks for another key all the time, as a busy process does."""
    world.policy = tmp_path / "policy.yaml"
    world.policy.write_text(POLICY.read_text().replace("lease_seconds: 60", "lease_seconds: 5"))
    short = Asking(world, world.start())
    holder = world.client(short.process, "order")
    (name,) = of_one_person("delivery")
    await holder.ensure([name])
    (answer,) = await short.revoke(Case(name.subject))
    revoked = time.monotonic()
    assert ("order", str(holder.holder_id)) in await holders(short, answer["number"])
    while ("order", str(holder.holder_id)) in await holders(short, answer["number"]):
        assert time.monotonic() < revoked + 20, "a holder that renews its leases holds the erasure up"
        with suppress(Unavailable):  # a vault that has enough of it refuses
            await holder.ensure(of_one_person("delivery"))
        await asyncio.sleep(0.05)
    rows = await world.sql(
        "SELECT lease_until > clock_timestamp() AS runs FROM holders WHERE holder = $1", holder.holder_id
    )
    assert [row["runs"] for row in rows] == [True]


@pytest.mark.fault(34, "a holder is too far behind the list")
async def test_a_holder_that_is_too_far_behind_gets_no_lease_until_it_reports(asking: Asking) -> None:
    world = asking.world
    holder = world.client(asking.process, "order")
    await holder.ensure(of_one_person("delivery"))
    (answer,) = await asking.revoke(Case(of_one_person("delivery")[0].subject))
    late = "UPDATE revocations SET committed_at = committed_at - interval '1 hour' WHERE number = $1"
    await world.sql(late, answer["number"])
    other = world.start()  # one that has not noted this holder a moment ago
    world.clients.append(behind := VaultClient(other.url, world.identity("order"), Clock()))
    behind.holder_id = holder.holder_id
    # Also when its leases are over: else it would come back, and each erasure would wait for its leases again.
    for over in ("lease_until", "clock_timestamp() - interval '1 ms'"):
        await world.sql(f"UPDATE holders SET lease_until = {over} WHERE holder = $1", holder.holder_id)
        with pytest.raises(Unavailable, match="too far behind the list"):
            await behind.ensure(of_one_person("delivery"))
    await behind.revocations(answer["number"], 0, done=answer["number"])
    assert await behind.ensure(of_one_person("delivery"))


async def test_nobody_is_done_for_another_system_or_with_entries_that_do_not_exist_yet(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    holder = asking.world.client(asking.process, "order")
    await holder.ensure([name])
    _, head = await asking.head()
    report = f"/v1/revocations?after={head}&holder={holder.holder_id}&done={head + 1000}"
    assert (await asking.get("order", report)).status_code == 200
    (answer,) = await asking.revoke(Case(name.subject))
    assert ("order", str(holder.holder_id)) in await holders(asking, answer["number"])
    assert (await asking.get("account", report)).status_code == 200
    assert (await asking.delete("account", f"/v1/holders/{holder.holder_id}")).status_code == 200
    assert ("order", str(holder.holder_id)) in await holders(asking, answer["number"])


async def test_whoever_does_not_say_who_it_is_is_waited_for_until_its_lease_is_over(asking: Asking) -> None:
    (name,) = of_one_person("delivery")
    await asking.generations(name)  # without X-Holder
    (answer,) = await asking.revoke(Case(name.subject))
    await asking.world.sql("UPDATE revocations SET committed_at = committed_at - interval '1 hour'")
    await asking.generations(*of_one_person("delivery"))  # it cannot report, so it is not refused
    assert ("order", str(UUID(int=0))) in await holders(asking, answer["number"])


async def test_nobody_is_asked_about_an_entry_that_does_not_exist(asking: Asking) -> None:
    _, head = await asking.head()
    assert (await asking.get("privacy", f"/v1/drained?number={head}")).status_code == 200
    assert (await asking.get("privacy", f"/v1/drained?number={head + 1}")).status_code == 422


async def holders(asking: Asking, number: int) -> set[tuple[str, str]]:
    return {(each["system"], each["holder"]) for each in await asking.waiting_for(number)}


# --- who may ---


@pytest.mark.parametrize("system", SYSTEMS)
async def test_the_privacy_service_alone_revokes_and_every_service_reads_the_list(asking: Asking, system: str) -> None:
    (name,) = of_one_person("delivery")
    (key,) = await asking.ensure(name)
    case = Case(name.subject)
    expected = 200 if system == "privacy" else 403
    revoked = await asking.post(system, "/v1/revocations", {"revocations": [case.body()]})
    destroyed = await asking.post(system, "/v1/revocations/destroy", {"request_ids": [str(case.request_id)]})
    drained = await asking.get(system, "/v1/drained?number=0")
    assert (revoked.status_code, destroyed.status_code, drained.status_code) == (expected,) * 3
    assert await asking.can_open("logistics-gateway", "delivery", name, key) == (system != "privacy")
    assert (await asking.get(system, "/v1/revocations?after=0")).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"data_classes": ["nonsense"]},
        {"data_classes": []},
        {"anchors": []},
        {"held": [{"data_class": "nonsense", "anchor": str(UUID(int=1))}]},
        {"reason": "asked for"},
    ],
    ids=["unknown_class", "no_class", "no_anchor", "unknown_held_class", "unknown_field"],
)
async def test_what_is_not_a_revocation_fences_nobody(asking: Asking, change: dict[str, object]) -> None:
    (name,) = of_one_person("delivery")
    (key,) = await asking.ensure(name)
    answer = await asking.post("privacy", "/v1/revocations", {"revocations": [{**Case(name.subject).body(), **change}]})
    assert answer.status_code == 422
    assert await asking.world.sql("SELECT 1 FROM fences WHERE subject_id = $1", name.subject) == []
    assert await asking.can_open("logistics-gateway", "delivery", name, key)
