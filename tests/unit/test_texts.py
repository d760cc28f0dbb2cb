"""What a line of text may hold: everything that people read, and nothing that they cannot see or that steers a machine."""

import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from account_service.page_views import BrowsingData
from account_service.schemas import AddressBody, EditBody, FavouriteBody, GuestBody, RegistrationBody
from event_contracts import texts
from event_contracts.account import Address, Line
from event_contracts.texts import RECORDED, plain_text
from order_service.purchases import PurchaseConsignee, PurchaseLine
from privacy_service.requests.schemas import DeliveryBody, RectificationBody

GOOD = [
    "X",
    "李",
    "Zoë O’Brien-D'Arcy",
    "St. John's Wood & Sons / c.o. No. 5 (2nd floor), #3 @ the mill: “north”",
    'משרד בע"מ',
    "محمد علی\u200cرضا",  # a non-joiner between two Arabic letters
    "क्\u200dष क्\u200cष",  # both joiners behind a virama
    "ශ්\u200dරී ලංකා",
    "അവന്\u200d",  # a chillu as it was written before Unicode 5.1
    "葛\U000e0100城市",  # the variant of an ideograph
    "山田\u3000太郎",
    "Lima\u00a0Nº\u00a05 ½",
    "Nguyễn Thị Ánh",
    "🏠 ❤\ufe0f 🇩🇪 Bäckerei™",
    "אֱלֹהִים",
    "ལྷ་ས།",
    "5～8号室",
]
BAD = [
    "Ada\u0000Example",
    "Example street 1\nATTN: somebody else",
    "Example\r\nstreet",
    "Ada\n",
    "a\tb",
    "Bad\u0000\n\u001bName",
    "\u001b@",
    "Ada\u0085Example",
    "Ada\u007f",
    "a\u2028b",
    "a\u2029b",
    "Jane \u202eeoD",
    "\u2066Jane\u2069",
    "\u200fJane",
    "Ja\u200bne",
    "Ja\u00adne",
    "Ja\u2060ne",
    "\ufeffJane",
    "Ja\u200dne",
    "\u200cJane",
    "محمد\u200c",
    "J\ufe0fane",
    "葛\U000e0100\U000e0101",
    "🏴\U000e0067\U000e007f",
    "\ue000",
    "a\U000f0000",
    "a\u0378",
    "a\ufffe",
    "a\ud800",
    "\udc00b",
    "^XA^FO50,50^FDhello^FS^XZ",
    "~JR",
    "street\\&12",
]  # fmt: skip
EMPTY = [
    "",
    " ",
    "\u200b",
    "\u3164",
    "\u115f",
    "\uffa0",
    "\u2800",
    "\u3000",
    "\u00a0",
    "\u0301",
    "\u034f",
    "\u200d",
    "\ufe0f",
]

ADDRESS = {"name": "Ada", "lines": ["High Street 1"], "city": "London", "postal_code": "E1 6AN", "country": "GB"}
PHONE = {"phone": "+442071234567"}
LINE = {
    "sku": "TEA-POT-1",
    "description": "Tea pot",
    "quantity": 1,
    "unit_price": 1,
    "net_weight_g": 1,
    "origin_country": "JP",
    "hs_code": "691110",
}
# Every text of every body in which a person or staff sends one, by the place of the text in it.
FIELDS: list[tuple[type[BaseModel], dict[str, Any], tuple[str | int, ...]]] = [
    (RegistrationBody, {"email": "a@example.org", "password": "correct horse 1", "name": "Ada"}, ("name",)),
    (EditBody, {"name": "Ada"}, ("name",)),
    *((AddressBody, {**ADDRESS, name: "x"}, (name,)) for name in ("name", "company", "city", "state", "postal_code")),
    (AddressBody, ADDRESS, ("lines", 0)),
    (FavouriteBody, {"sku": "x"}, ("sku",)),
    (BrowsingData, {"page": "/"}, ("page",)),
    (BrowsingData, {"page": "/", "sku": "x"}, ("sku",)),
    *(
        (PurchaseConsignee, {**ADDRESS, **PHONE, name: "x"}, (name,))
        for name in ("name", "company", "city", "state", "postal_code")
    ),
    (PurchaseConsignee, {**ADDRESS, **PHONE}, ("lines", 0)),
    (PurchaseLine, LINE, ("description",)),
    (RectificationBody, {"identity": {"name": "Ada"}}, ("identity", "name")),
    *(
        (
            DeliveryBody,
            {"order_id": "2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11", "consignee": {**ADDRESS, **PHONE, name: "x"}},
            ("consignee", name),
        )
        for name in ("name", "company", "city", "state", "postal_code")
    ),
]


def put(body: dict[str, Any], path: tuple[str | int, ...], value: str) -> dict[str, Any]:
    head, *rest = path
    inner: Any = value
    if rest:
        inner = [value] if isinstance(rest[0], int) else put(body[str(head)], tuple(rest), value)
    return {**body, str(head): inner}


@pytest.mark.parametrize("text", GOOD)
def test_names_of_one_letter_and_of_all_scripts_pass(text: str) -> None:
    for model, body, path in FIELDS:
        if path[-1] != "postal_code":  # that has the form of its country (test_country_data.py)
            assert model.model_validate(put(body, path, text))
    assert TypeAdapter(Line).validate_python(text) == unicodedata.normalize("NFC", text)


@pytest.mark.attack(
    "a label printer's commands, hidden and bidi characters in a text", expected="422 with the field's name"
)
@pytest.mark.parametrize("text", BAD)
def test_what_nobody_can_read_is_refused_in_every_field_alike(text: str) -> None:
    for model, body, path in FIELDS:
        with pytest.raises(ValidationError) as refused:
            model.model_validate(put(body, path, text))
        (error,) = [each for each in refused.value.errors() if each["loc"] == path]
        assert error["type"] == "unprintable_text"
        assert error["msg"].startswith("Send one line of text that can be read")


@pytest.mark.parametrize("text", EMPTY)
def test_a_text_in_which_nothing_can_be_seen_is_refused(text: str) -> None:
    for model, body, path in FIELDS:
        with pytest.raises(ValidationError):
            model.model_validate(put(body, path, text))


@pytest.mark.parametrize("text", [*BAD, "\u200b"])
def test_an_email_address_has_no_such_character_either(text: str) -> None:
    with pytest.raises(ValidationError):
        GuestBody.model_validate({"email": f"ada{text}@example.org"})


def test_texts_are_kept_in_normal_form_c() -> None:
    assert TypeAdapter(Line).validate_python("Zoe\u0308") == "Zoë"


def test_what_was_sealed_before_the_rule_is_still_read() -> None:
    old = b'{"name":"Ada\\u0000","lines":["1\\nATTN"],"city":"^XA","postal_code":"\\u200b","country":"GB"}'
    assert Address.model_validate_json(old, context=RECORDED).lines == ("1\nATTN",)


@given(st.text(max_size=40))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    try:
        kept = TypeAdapter(Line).validate_python(text)
    except ValidationError:
        return
    assert not any(unicodedata.category(each) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for each in kept)
    assert TypeAdapter(Line).validate_python(kept) == kept


@pytest.mark.attack(
    "a text of thousands of marks on one letter", expected="refused before it is brought into normal form"
)
def test_marks_without_end_are_refused_before_the_text_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_text("a" + 15 * "\u0327\u0301") == unicodedata.normalize("NFC", "a" + 15 * "\u0327\u0301")
    monkeypatch.setattr(texts, "unicodedata", SimpleNamespace(combining=unicodedata.combining))
    for marks in (31, 8_000):
        with pytest.raises(ValueError, match=texts.UNPRINTABLE):
            plain_text("a" + (marks * "\u0327\u0301")[:marks])
