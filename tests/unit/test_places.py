"""What a partition is to a reader, by its position and by what Kafka has there."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from servicekit.core.settings import Settings
from servicekit.db.inbox import Position
from servicekit.kafka.cloudevents import RawRecord
from servicekit.kafka.places import Look, Standing, begin_of, judge
from servicekit.kafka.positions_command import parse
from servicekit.kafka.record_hash import hash_key, hash_of, is_same

KEY = b"k" * 32
TOPIC, OTHER = UUID(int=1), UUID(int=2)
LAST = RawRecord("t", 0, 5, b"key", b"value", (("ce_id", b"1"), ("null", None)))
AT = Position(6, hash_of(LAST, KEY), TOPIC)
SAME = Look(TOPIC, 0, 8, LAST)


@pytest.mark.parametrize(
    ("position", "look", "expected", "begin"),
    [
        (AT, SAME, Standing.SAME, 6),
        (AT, Look(TOPIC, 0, 6, LAST), Standing.SAME, 6),  # nothing is left to read
        (AT, Look(TOPIC, 5, 8, LAST), Standing.SAME, 6),
        (AT, Look(TOPIC, 6, 8), Standing.SAME, 6),  # retention took what was read
        (AT, Look(TOPIC, 6, 6), Standing.SAME, 6),  # an empty partition that begins where the reader is
        (AT, Look(TOPIC, 7, 8), Standing.GONE, None),  # retention took one that was not read
        (AT, Look(TOPIC, 8, 8), Standing.GONE, None),
        (AT, Look(TOPIC, 0, 5), Standing.SET_BACK, None),
        (AT, Look(TOPIC, 0, 0), Standing.SET_BACK, None),
        (AT, Look(TOPIC, 0, 8, RawRecord("t", 0, 5, b"key", b"other", ())), Standing.REWRITTEN, None),
        (AT, Look(TOPIC, 0, 8, RawRecord("t", 0, 6, b"key", b"value", LAST.headers)), Standing.REWRITTEN, None),
        (AT, Look(TOPIC, 0, 8, None), Standing.REWRITTEN, None),  # a marker stands there
        (AT, Look(OTHER, 0, 8, LAST), Standing.MADE_ANEW, 0),
        (AT, Look(OTHER, 0, 3), Standing.MADE_ANEW, 0),
        (AT, Look(OTHER, 2, 2), Standing.MADE_ANEW, 2),
        (AT, Look(None, 0, 8, LAST), Standing.SAME, 6),
        (Position(6), Look(TOPIC, 0, 8), Standing.SAME, 6),  # from before hashes were kept
        (Position(6), Look(TOPIC, 0, 5), Standing.SET_BACK, None),
        (Position(0), Look(TOPIC, 0, 0), Standing.NEW_READER, 0),
        (Position(0), Look(TOPIC, 9, 12), Standing.NEW_READER, 9),
        (Position(0, None, TOPIC), Look(TOPIC, 0, 3), Standing.SAME, 0),
        (Position(0, None, TOPIC), Look(TOPIC, 1, 3), Standing.GONE, None),
    ],
)
def test_a_partition_is_judged(position: Position, look: Look, expected: Standing, begin: int | None) -> None:
    standing = judge(position, look, KEY)
    assert standing is expected
    assert standing.stops is (begin is None)
    if begin is not None:
        assert begin_of(position, look, standing).next == begin


def test_a_hash_under_another_key_says_nothing() -> None:
    assert is_same(AT.hash or uuid4(), RawRecord("t", 0, 5, None, None, ()), b"another")
    assert judge(AT, SAME, b"another") is Standing.SAME


@pytest.mark.parametrize(
    "other",
    [
        RawRecord("t", 0, 5, b"keyv", b"alue", LAST.headers),
        RawRecord("t", 0, 5, None, b"value", LAST.headers),
        RawRecord("t", 0, 5, b"key", None, LAST.headers),
        RawRecord("t", 0, 5, b"key", b"value", LAST.headers[:1]),
        RawRecord("t", 0, 5, b"key", b"value", (LAST.headers[0], ("null", b""))),
        RawRecord("t", 0, 5, b"key", b"value", LAST.headers[::-1]),
    ],
)
def test_another_record_has_another_hash(other: RawRecord) -> None:
    assert hash_of(other, KEY) != hash_of(LAST, KEY)
    assert hash_of(LAST, KEY) == AT.hash


def test_the_key_of_hashes_comes_from_the_service_s_id_key(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("ab" * 32)
    (tmp_path / "other").write_text("cd" * 32)
    keys = {hash_key(Settings(id_key_file=tmp_path / name)) for name in ("id", "other")} | {hash_key(Settings())}
    assert len(keys) == 3
    assert b"ab" * 32 not in keys


def test_another_record_in_the_place_of_the_last_one_is_no_place_to_go_on_from() -> None:
    """L4: the records before it are others than those that were read, too."""
    other = RawRecord("t", 0, 5, b"key", b"another value", LAST.headers)
    assert judge(AT, Look(TOPIC, 0, 8, other), KEY) is Standing.REWRITTEN


@pytest.mark.parametrize("words", [[], ["skip"], ["skip", "--reader", "r", "--topic", "t"], ["drop"]])
def test_a_wrong_call_of_positions_prints_its_usage_and_nothing_of_what_was_typed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("test", [*words, "--jane.doe@example"])
    assert caught.value.code == 2
    assert "jane" not in "".join(capsys.readouterr())
