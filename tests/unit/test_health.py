"""Health is progress, not life."""

from datetime import timedelta

from servicekit.core.clock import FakeClock
from servicekit.core.health import Health


def test_a_loop_is_unhealthy_until_its_first_beat() -> None:
    health = Health("order", "relay", "1", FakeClock())
    loop = health.loop("relay")
    assert health.report()["problems"] == {"relay": "starting"}
    loop.beat()
    assert health.report()["ok"]


def test_idle_is_healthy_and_silence_is_not() -> None:
    clock = FakeClock()
    health = Health("order", "relay", "1", clock)
    loop = health.loop("relay", timedelta(seconds=10))
    for _ in range(5):
        clock.tick(8)
        loop.beat(lag=0)
    assert health.report()["ok"]
    clock.tick(11)
    assert health.report()["problems"] == {"relay": "no_sign_of_life"}


def test_work_that_does_not_shrink_is_unhealthy_though_the_loop_turns() -> None:
    clock = FakeClock()
    health = Health("order", "relay", "1", clock)
    loop = health.loop("relay", timedelta(seconds=10))
    loop.beat(lag=5)
    for _ in range(3):
        clock.tick(4)
        loop.beat(lag=5)
    assert health.report()["problems"] == {"relay": "no_progress"}
    loop.beat(lag=4, advanced=True)
    assert health.report()["ok"]
    assert health.report()["lag"] == {"relay": 4}


def test_a_turn_that_failed_is_unhealthy_until_one_succeeds() -> None:
    health = Health("vault", "jobs", "1", FakeClock())
    loop = health.loop("prune")
    loop.beat()
    loop.fail()
    assert health.report()["problems"] == {"prune": "failed"}
    loop.beat()
    assert health.report()["ok"]


def test_a_process_is_ready_while_only_its_own_loops_lack_something() -> None:
    clock = FakeClock()
    health = Health("order", "api", "1", clock)
    reader, database = health.loop("consume.orders"), health.loop("job.writers", needs="postgres")
    assert health.report()["ready"]  # it could not have begun without a database
    reader.beat()
    database.beat()
    clock.tick(61)
    database.beat()
    report = health.report()
    assert (report["ready"], report["missing"], report["ok"]) == (True, [], False)
    assert report["problems"] == {"consume.orders": "no_sign_of_life"}
    clock.tick(61)
    report = health.report()
    assert (report["ready"], report["missing"]) == (False, ["postgres"])


def test_facts_and_refusals_are_reported() -> None:
    health = Health("order", "api", "1", FakeClock(), facts={"outbox_depth": lambda: 7})
    health.refuse("behind_revocations")
    assert not health.report()["ok"]
    assert health.report()["outbox_depth"] == 7
    health.accept("behind_revocations")
    assert health.report()["ok"]


def test_a_loop_that_waits_for_an_operator_is_told_apart_from_the_process() -> None:
    clock = FakeClock()
    health = Health("order", "consume", "1", clock)
    loop = health.loop("consume.shipments", timedelta(seconds=10))
    for _ in range(5):
        loop.stop("quarantine_full")
        clock.tick(8)
    assert (health.report()["ok"], health.report()["needs_operator"]) == (
        True,
        {"consume.shipments": "quarantine_full"},
    )
    loop.beat(lag=0)
    assert health.report()["needs_operator"] == {}


def test_a_loop_that_waits_for_an_operator_in_a_part_says_so_however_well_it_gets_on() -> None:
    health = Health("order", "consume", "1", FakeClock())
    loop = health.loop("consume.shipments")
    loop.stopped = "records_gone"
    loop.beat(advanced=True)
    assert (health.report()["ok"], health.report()["needs_operator"]) == (True, {"consume.shipments": "records_gone"})
    loop.stopped = None
    assert health.report()["needs_operator"] == {}
