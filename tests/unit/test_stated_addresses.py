"""What requests may state of phones and addresses: the inputs of shops, with the values that they are kept as."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from account_service.schemas import AddressBody, EditBody, GuestBody, RegistrationBody, SignInBody
from event_contracts.account import Address, ContactCorrection
from event_contracts.order import Consignee
from order_service.domain import consignee_of
from order_service.purchases import Purchase, PurchaseConsignee
from privacy_service.inventory.http import FindBody
from privacy_service.requests.handlers import Corrections
from privacy_service.requests.http import _corrections
from privacy_service.requests.schemas import ContactBody, DeliveryBody, RectificationBody
from servicekit.http.expected import expected

HONG_KONG = {
    "name": "A",
    "lines": ["Flat 3A, 14 Science Museum Rd"],
    "city": "Hong Kong",
    "country": "HK",
    "phone": "+85221234567",
}
SAN_JOSE = {
    "name": "Ada Example",
    "lines": ["1 Infinite Loop"],
    "city": "Cupertino",
    "state": "California",
    "postal_code": "95014",
    "country": "US",
    "phone": "(503) 555-7555",
}


def stated(model: type[BaseModel], body: dict[str, Any]) -> Any:
    if model is DeliveryBody:
        return model.model_validate({"order_id": "2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11", "consignee": body}).consignee  # type: ignore[attr-defined]
    return model.model_validate(body)


def refusals(model: type[BaseModel], body: dict[str, Any]) -> dict[str, str | None]:
    """By the field's name, what is expected."""
    with pytest.raises(ValidationError) as refused:
        stated(model, body)
    return {str(error["loc"][-1]): expected(error) for error in refused.value.errors()}  # type: ignore[arg-type]


ADDRESSES = pytest.mark.parametrize("model", [PurchaseConsignee, AddressBody, DeliveryBody])


@ADDRESSES
def test_an_address_without_postal_code_is_one_where_there_are_none(model: type[BaseModel]) -> None:
    address = stated(model, HONG_KONG)
    assert (address.postal_code, address.state, address.phone) == (None, None, "+85221234567")
    assert refusals(model, HONG_KONG | {"postal_code": "999077"}) == {
        "postal_code": "Leave the postal code out: HK has none."
    }
    assert refusals(model, HONG_KONG | {"country": "DE", "phone": None}) == {
        "postal_code": "Send a whole postal code; in DE one looks like 26133."
    }


@ADDRESSES
def test_a_state_is_a_code_and_a_postal_code_whole_where_carriers_need_them(model: type[BaseModel]) -> None:
    address = stated(model, SAN_JOSE)
    assert (address.state, address.postal_code, address.phone) == ("CA", "95014", "+15035557555")
    assert refusals(model, SAN_JOSE | {"postal_code": "9511"}) == {
        "postal_code": "Send a whole postal code; in US one looks like 95014."
    }
    del (without := dict(SAN_JOSE))["state"]
    assert refusals(model, without) == {"state": "Send the state by its name or code; in US one is Wyoming or WY."}


@ADDRESSES
def test_a_phone_is_optional_and_read_for_the_addresss_country(model: type[BaseModel]) -> None:
    body = SAN_JOSE | {"country": "DE", "postal_code": "53113"}
    assert stated(model, body | {"phone": None}).phone is None
    for written in ("0228 123456-17", "0049 (0)228 12345617", "+49 228 12345617"):
        assert stated(model, body | {"phone": written}).phone == "+4922812345617"
    assert refusals(model, body | {"phone": "0228 home"}) == {
        "phone": "Send the whole phone number with its area code and no extension, as in DE: 030 123456 or +49 30 123456."
    }


@ADDRESSES
def test_a_country_is_one_of_iso_3166(model: type[BaseModel]) -> None:
    for written, code in (("UK", "GB"), ("GB", "GB")):
        assert stated(model, SAN_JOSE | {"country": written, "postal_code": "SW1A1AA", "phone": None}).country == code
    for wrong in ("XX", "ZZ", "usa", ""):
        # The other fields cannot be read then, and are not complained about.
        assert list(refusals(model, SAN_JOSE | {"country": wrong, "phone": "1"})) == ["country"]


def test_what_is_stated_is_within_the_contracts() -> None:
    for body in (HONG_KONG, SAN_JOSE):
        consignee = consignee_of(PurchaseConsignee.model_validate(body))
        assert Consignee.model_validate_json(consignee.model_dump_json()) == consignee
        address = Address(**AddressBody.model_validate(body).model_dump())
        assert Address.model_validate_json(address.model_dump_json(exclude_none=True)) == address


def test_an_order_names_currencies_and_countries_that_exist() -> None:
    line = {"sku": "TEA", "description": "Tea", "quantity": 1, "unit_price": 1, "net_weight_g": 1, "hs_code": "090210"}
    purchase = {
        "lines": [line | {"origin_country": "JP"}],
        "currency": "EUR",
        "consignee": HONG_KONG,
        "gift": False,
        "service": "standard",
        "payment": {"token": "tok_canary_0001"},
    }
    assert Purchase.model_validate(purchase)
    assert list(refusals(Purchase, purchase | {"currency": "XXX"})) == ["currency"]
    assert list(refusals(Purchase, purchase | {"currency": "ZZZ"})) == ["currency"]
    assert list(refusals(Purchase, purchase | {"lines": [line | {"origin_country": "ZZ"}]})) == ["origin_country"]


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (RegistrationBody, {"email": "a@example.org", "password": "correct horse 1", "name": "A"}),
        (GuestBody, {"email": "a@example.org"}),
        (EditBody, {}),
        (ContactBody, {}),
    ],
)
def test_a_phone_without_an_address_begins_with_a_plus_or_has_a_country(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    for phone in ({"phone": "+49 (0)228 12345617"}, {"phone": "0228 12345617", "country": "DE"}):
        assert stated(model, body | phone).phone == "+4922812345617"
    assert refusals(model, body | {"phone": "0228 12345617"}) == {
        "phone": "Send the phone number with + and the code of its country, such as +31 10 123 4567, or say its country."
    }


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (RegistrationBody, {"password": "correct horse 1", "name": "A"}),
        (SignInBody, {"password": "correct horse 1"}),
        (GuestBody, {}),
        (EditBody, {}),
        (ContactBody, {}),
        (PurchaseConsignee, HONG_KONG),
    ],
)
def test_one_mailbox_has_one_spelling_of_its_domain_everywhere(model: type[BaseModel], body: dict[str, Any]) -> None:
    kept = {
        stated(model, body | {"email": f"ada@{domain}"}).email for domain in ("MÜLLER.example", "xn--mller-kva.example")
    }
    assert kept == {"ada@müller.example"}
    assert stated(model, body | {"email": "info@faß.example"}).email == "info@faß.example"
    for wrong in ("a@b", "a..b@example.org", "a@example.invalid"):
        assert refusals(model, body | {"email": wrong})["email"] is not None


def test_a_correction_holds_the_normal_forms_and_no_country_of_a_phone() -> None:
    body = RectificationBody.model_validate({"contact": {"phone": "0228 123456-17", "country": "DE"}})
    assert _corrections(body) == Corrections(None, ContactCorrection(phone="+4922812345617"))
    delivery = {"order_id": "2b0e4c1a-0a53-4c5e-9a61-7d1f3f6f1c11", "consignee": SAN_JOSE}
    given = _corrections(RectificationBody.model_validate({"delivery": delivery}))
    assert given is not None
    assert given.delivery is not None
    assert (given.delivery.consignee.phone, given.delivery.consignee.state) == ("+15035557555", "CA")
    nothing = _corrections(RectificationBody.model_validate({"contact": {"country": "DE"}}))
    assert nothing == Corrections(None, None)


@pytest.mark.parametrize(
    ("by", "term", "country", "kept"),
    [
        ("phone", "0228 123456-17", "DE", "+4922812345617"),
        ("phone", "0049 (0)228 12345617", "DE", "+4922812345617"),
        ("phone", "+49 228 / 12345617", None, "+4922812345617"),
        ("email", "ada@xn--mller-kva.example", None, "ada@müller.example"),
        ("order_number", "7h3kq 0zx9m", None, "7h3kq 0zx9m"),
    ],
)
def test_a_find_looks_for_the_form_that_is_kept(by: str, term: str, country: str | None, kept: str) -> None:
    body = FindBody.model_validate({"by": by, "term": term, "country": country})
    assert body.term.get_secret_value() == kept


def test_a_find_asks_for_the_country_when_it_cannot_tell() -> None:
    assert refusals(FindBody, {"by": "phone", "term": "0228 12345617"}) == {
        "term": "Send the phone number with + and the code of its country, such as +31 10 123 4567, or say its country."
    }
