"""The bytes that docs/protocols.md shows are those that the code writes and reads."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from pydantic import TypeAdapter

import event_contracts
from deploy.check.findings import ROOT
from event_contracts import Event, Sealed
from event_contracts.privacy import EVENTS
from event_contracts.vault_api import EnsureBody, Entry, LeasesBody
from servicekit.core.revocation_list import FIRST_HASH, make_entry
from servicekit.http.ids import Ids
from servicekit.kafka.client import key_hash
from servicekit.kafka.cloudevents import RawRecord, read_event, to_headers, types_of
from servicekit.kit import normalise
from servicekit.vault.client import AUDIENCE, TOKEN_ALGORITHM
from tests.support.reviews.app import ReviewPosted

DOCUMENT = ROOT / "docs" / "protocols.md"
EXAMPLES = Path(event_contracts.__file__).parent / "examples"
_BLOCK = re.compile(r"^```\w+ ([\w.-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = dict(_BLOCK.findall(DOCUMENT.read_text()))

EVENT_ID = UUID("0199f3a1-7c00-7d3b-9a52-5f1e0c2b7a44")
AUTHOR, REVIEW = UUID("f32ca7b1-9612-4a0e-8a55-333280ce2625"), UUID("9170fa78-b9d4-49a1-bee5-ff75b7ff5c17")
REQUEST, SUBJECT = UUID("2f6f0b8e-6d8c-4b1f-9b0e-1c8f4c0a7d11"), UUID("0717f531-922a-4bce-a582-483d97447ed1")
KEY_ID = UUID("e860166d-2894-4036-8609-c1d66dcf9227")
AT = datetime(2026, 11, 30, 10, 15, 0, 250000, tzinfo=UTC)
VECTORS: Any = json.loads((Path(__file__).parent / "vectors" / "tokens.json").read_text())


def event() -> ReviewPosted:
    """With the token of the worked example of docs/token.md."""
    reviewer = Sealed[Any](bytes.fromhex(VECTORS["tokens"][0]["token"]))
    return ReviewPosted(review_id=REVIEW, author_id=AUTHOR, stars=5, reviewer=reviewer)


def headers() -> str:
    made = to_headers(event(), event_id=EVENT_ID, source="reviews", time=AT)
    return "".join(f"{name}: {value.decode()}\n" for name, value in made)


def entry() -> Entry:
    return make_entry(1, "fence", REQUEST, SUBJECT, is_final=True, key_ids=[KEY_ID], previous_hash=FIRST_HASH)


def hashed() -> str:
    rest = {name: value for name, value in json.loads(msgspec.json.encode(entry())).items() if name != "hash"}
    return json.dumps(rest, sort_keys=True, separators=(",", ":")) + "\n"


def new_id() -> str:
    made = Ids("reviews", bytes(range(32))).make("/v1/reviews", f"customer:{SUBJECT}", KEY_ID)
    return f"{made}\n"


MADE: dict[str, Callable[[], str]] = {
    "record-headers": headers,
    "record-body": lambda: event().model_dump_json() + "\n",
    "record-partition": lambda: f"{key_hash(str(AUTHOR).encode())} mod 3 = {key_hash(str(AUTHOR).encode()) % 3}\n",
    "entry": lambda: msgspec.json.encode(entry()).decode() + "\n",
    "entry-hashed": hashed,
    "new-id": new_id,
}


@pytest.mark.parametrize("name", MADE)
def test_what_the_document_shows_is_what_the_code_writes(name: str) -> None:
    assert BLOCKS[name] == MADE[name]()


def test_the_record_of_the_document_is_read_as_the_event_that_it_is() -> None:
    sent = [line.split(": ", 1) for line in BLOCKS["record-headers"].splitlines()]
    record = RawRecord(
        "review.events",
        0,
        0,
        str(AUTHOR).encode(),
        BLOCKS["record-body"].strip().encode(),
        tuple((name, value.encode()) for name, value in sent),
    )
    received = read_event(record, types_of([ReviewPosted]))
    assert received is not None
    assert (received.event, received.id, received.time, received.source) == (event(), EVENT_ID, AT, "reviews")


@pytest.mark.parametrize("contract", EVENTS, ids=lambda contract: contract.type_name())
def test_every_command_and_reply_stands_in_the_document_as_its_example(contract: type[Event]) -> None:
    """Sealed values are cut short there."""
    told = json.loads(BLOCKS[contract.type_name()])
    known = json.loads((EXAMPLES / f"{contract.type_name()}.json").read_text())
    assert told.keys() == known.keys()
    for name, value in told.items():
        if isinstance(value, str) and value.endswith("…"):
            assert known[name].startswith(value[:-1])
        else:
            assert value == known[name]


@pytest.mark.parametrize(("name", "body"), [("ensure", EnsureBody), ("lease", LeasesBody)])
def test_what_the_document_asks_the_vault_is_what_it_reads(name: str, body: type[Any]) -> None:
    read = msgspec.json.decode(BLOCKS[name], type=body)
    assert [each.subject for each in read.keys] == [AUTHOR]


def test_the_vaults_token_has_the_claims_of_the_document() -> None:
    header, claims = (json.loads(line) for line in BLOCKS["vault-token"].splitlines())
    assert header == {"typ": "JWT", "alg": TOKEN_ALGORITHM}
    assert claims["aud"] == AUDIENCE
    assert 0 < claims["exp"] - claims["iat"] <= 60


def test_terms_are_normalised_as_the_document_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| `([^`]+)` \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(rows) == 4
    assert [normalise(kind, term) for kind, term, _ in rows] == [normal for _, _, normal in rows]


def test_an_entry_of_the_document_is_one() -> None:
    assert TypeAdapter(dict[str, Any]).validate_json(BLOCKS["entry"])["hash"] == entry().hash
