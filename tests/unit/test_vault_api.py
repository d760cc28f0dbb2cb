"""The bytes of the vault's requests and answers: what is left out, in which order, and what is refused."""

from datetime import UTC, date, datetime
from uuid import UUID

import msgspec
import pytest

from event_contracts import vault_api

ID, OTHER = UUID(int=1), UUID(int=2)
_ID, _OTHER = f'"{ID}"', f'"{OTHER}"'
AT = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)

BYTES = [
    (
        vault_api.EnsureBody(
            [vault_api.KeyBody(ID, "delivery", OTHER), vault_api.KeyBody(ID, "contact", ID, "person")]
        ),
        (
            f'{{"keys":[{{"subject":{_ID},"data_class":"delivery","anchor":{_OTHER}}},'
            f'{{"subject":{_ID},"data_class":"contact","anchor":{_ID},"new":"person"}}],"index":[]}}'
        ),
    ),
    (
        vault_api.LeaseAnswer(
            "i", 3, 300.0, [vault_api.LeasedKey(ID, "active", "AA"), vault_api.LeasedKey(ID, "fenced")]
        ),
        (
            f'{{"incarnation":"i","revision":3,"lease_seconds":300.0,'
            f'"keys":[{{"key_id":{_ID},"state":"active","key":"AA"}},{{"key_id":{_ID},"state":"fenced"}}]}}'
        ),
    ),
    (
        vault_api.RevocationBody(ID, OTHER),
        f'{{"request_id":{_ID},"subject":{_OTHER},"data_classes":null,"anchors":null,"held":[]}}',
    ),
    (
        vault_api.AgedKeys([vault_api.AgedKey(ID, OTHER, "delivery", ID, AT)]),
        (
            f'{{"keys":[{{"key_id":{_ID},"subject":{_OTHER},"data_class":"delivery","anchor":{_ID},'
            '"created_at":"2026-11-30T12:00:00Z"}]}'
        ),
    ),
    (
        vault_api.DestroyAnswer("i", 3, [], date(2027, 1, 1)),
        '{"incarnation":"i","head":3,"destroyed":[],"horizon":"2027-01-01"}',
    ),
    (vault_api.Done(), "{}"),
]


@pytest.mark.parametrize(("body", "text"), BYTES, ids=lambda each: type(each).__name__)
def test_a_body_has_these_bytes_and_is_read_back(body: msgspec.Struct, text: str) -> None:
    assert msgspec.json.encode(body).decode() == text
    assert msgspec.json.decode(text, type=type(body)) == body


def test_a_request_with_a_field_more_is_refused_and_an_answer_with_one_is_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"request_ids":[' + _ID.encode() + b'],"more":1}', type=vault_api.DestroyBody)
    assert msgspec.json.decode(b'{"more":1}', type=vault_api.Done) == vault_api.Done()


def test_an_answer_that_a_key_under_a_request_is_active_is_not_read() -> None:
    text = f'{{"key_id":{_ID},"data_class":"delivery","anchor":{_ID},"state":"active","fingerprint":""}}'
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=vault_api.KeyOutcome)
