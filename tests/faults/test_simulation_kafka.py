"""The simulation's broker and a real Kafka keep the same promises, and the same lists of operations hold on both."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from deploy.local.interfaces import KafkaServer
from event_contracts.carrier import replies_topic
from event_contracts.order import ORDER_EVENTS
from servicekit.kafka.client import OutRecord
from tests.faults.reproductions import REPRODUCTIONS, Reproduction
from tests.faults.simulation import CHOICES, Op
from tests.faults.simulation_broker import PARTITIONS, Broker, Lost, SimulatedProducer
from tests.faults.simulation_ground import Ground, ground
from tests.faults.simulation_kafka import broker_on, make_topics
from tests.faults.test_simulation import BREAKS, HAPPENS, IS_LONG, PEOPLE_DO, RESTORES, play
from tests.support.faults import seeded
from tests.support.infra import kafka_server, postgres_server

__all__ = ["ground", "kafka_server", "postgres_server"]

NAMED = ("half_a_batch_is_produced", "new_groups_after_an_erasure", "zombie_reader_commits_late")
SAMPLE = [case for case in REPRODUCTIONS if IS_LONG or case.name in NAMED]
MADE_UP = 20 if IS_LONG else 2
LENGTH = 20


@pytest.fixture(scope="module")
def on_kafka(kafka_server: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Broker]:
    make_topics(kafka_server)
    folder = tmp_path_factory.mktemp("simulation-kafka")
    return lambda: broker_on(kafka_server, folder)


@pytest.fixture(params=["in_process", "kafka"])
def make_broker(request: pytest.FixtureRequest, on_kafka: Callable[[], Broker]) -> Callable[[], Broker]:
    return {"in_process": Broker, "kafka": on_kafka}[request.param]


def record(key: bytes, number: int, headers: tuple[tuple[str, bytes], ...] = ()) -> OutRecord:
    return OutRecord(ORDER_EVENTS, key, b"%d" % number, headers)


def values(broker: Broker, key: bytes) -> list[list[int]]:
    """Of the records with this key, by partition."""
    found = [[int(r.value or b"") for r in log if r.key == key] for log in broker.logs[ORDER_EVENTS]]
    return [each for each in found if each]


async def check_order(broker: Broker) -> None:
    """Records of one key share a partition and keep their order; offsets begin at 0 and have no gap."""
    keys = [b"%d" % number for number in range(8)]
    for number in range(5):
        await broker.write([record(key, number) for key in keys])
    assert {key: values(broker, key) for key in keys} == {key: [[0, 1, 2, 3, 4]] for key in keys}
    for place in broker.places([ORDER_EVENTS]):
        offsets = [each.offset for each in broker.after(place, 0, 100)]
        assert offsets == list(range(broker.end(place)))
        assert [each.offset for each in broker.after(place, 2, 3)] == offsets[2:5]
    assert broker.size == 40


async def check_content(broker: Broker) -> None:
    """Keys, values and headers come back as they were, whoever wrote; a header may come twice, or without a value."""
    headers = (("a", b"1"), ("a", b"\xff"), ("b", b""))
    await broker.write([record(b"k", 1, headers)])
    broker.append(replies_topic("meridian"), b"r", b"\x00sealed", [("n", None)])
    (mine,) = [each for log in broker.logs[ORDER_EVENTS] for each in log]
    (reply,) = [each for log in broker.logs[replies_topic("meridian")] for each in log]
    assert (mine.key, mine.value, mine.headers) == (b"k", b"1", headers)
    assert (reply.key, reply.value, reply.headers) == (b"r", b"\x00sealed", (("n", None),))


async def check_repeat(broker: Broker) -> None:
    """A record that comes again stands behind all that came since."""
    await broker.write([record(b"k", number) for number in range(3)])
    broker.repeat(ORDER_EVENTS, 0)
    assert values(broker, b"k") == [[0, 1, 2, 0]]


async def check_losses(broker: Broker) -> None:
    """A lost request writes nothing, a lost answer all, or half."""
    producer = SimulatedProducer(broker)
    broker.losses.extend(["request", "reply", "half"])
    for number in range(3):
        with pytest.raises(Lost):
            await producer.send([record(b"k", 10 * number), record(b"k", 10 * number + 1)])
    await producer.send([record(b"k", 99)])
    assert values(broker, b"k") == [[10, 11, 20, 99]]


async def check_empty(broker: Broker) -> None:
    """Whatever stood in the topics before is another run's."""
    assert broker.size == 0
    assert {topic: len(logs) for topic, logs in broker.logs.items()} == PARTITIONS


@pytest.mark.parametrize("check", [check_order, check_content, check_repeat, check_losses, check_empty])
def test_both_brokers_keep_the_same_promises(
    make_broker: Callable[[], Broker], check: Callable[[Broker], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        broker = make_broker()
        try:
            await check(broker)
        finally:
            await broker.close()

    asyncio.run(run())


@pytest.fixture
def ground_on_kafka(ground: Ground, on_kafka: Callable[[], Broker]) -> Iterator[Ground]:
    ground.make_broker = on_kafka
    yield ground
    ground.make_broker = Broker


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_named_list_holds_on_a_real_kafka(ground_on_kafka: Ground, case: Reproduction) -> None:
    play(ground_on_kafka, case.ops)


@pytest.mark.seeded
@pytest.mark.fault(6, "records come again and out of turn on a real Kafka, in lists of operations that are made up")
@pytest.mark.parametrize("number", range(MADE_UP))
def test_a_list_that_is_made_up_holds_on_a_real_kafka(ground_on_kafka: Ground, number: int) -> None:
    play(ground_on_kafka, made_up(seeded(f"kafka {number}")))


def made_up(chance: random.Random) -> list[Op]:
    """Without Hypothesis: on Kafka a list that fails is played again by its seed, and made smaller on the other broker."""
    names = [chance.choice(PEOPLE_DO + HAPPENS + BREAKS + RESTORES) for _ in range(LENGTH)]
    return [Op(name, chance.choice(CHOICES.get(name) or range(60)), chance.randrange(60)) for name in names]
