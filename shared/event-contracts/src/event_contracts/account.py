"""What the account service publishes."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Final
from unicodedata import normalize
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from event_contracts.codes import (
    EXAMPLES,
    Country,
    DataClass,
    FieldPath,
    LaneId,
    PolicyVersion,
    Purpose,
    SystemName,
    Version,
)
from event_contracts.event import Event
from event_contracts.personal import PersonalData, Sealed, about, category
from event_contracts.texts import Plain

ACCOUNT_EVENTS = "account.events"
BROWSING_EVENTS = "browsing.events"

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Plain]
# E.164: a plus sign and at most 15 digits
_PHONE: Final = r"^\+[1-9][0-9]{6,14}$"
Phone = Annotated[str, StringConstraints(pattern=_PHONE)]
# `=?` begins an encoded word (RFC 2047), which a reader of mails decodes to something else, such as a line break.
ENCODED: Final = "encoded_text"


def _refuse_encoded(text: str, info: ValidationInfo) -> str:
    # The normal form KC is what a domain is looked up by.
    if "=?" in normalize("NFKC", text) and not (info.context and info.context.get("recorded")):
        raise PydanticCustomError(ENCODED, "Send the address as it is, without encoded text.")
    return text


_EMAIL: Final = r"^[^@\s]{1,64}@[^@\s]{1,253}\.[^@\s.]{2,63}$"
Email = Annotated[
    str,
    StringConstraints(pattern=_EMAIL, max_length=254),
    Plain,
    AfterValidator(_refuse_encoded),
]
EXAMPLES.update({_PHONE: "+31105550100", _EMAIL: "someone@example.org"})


_FIRST_BIRTH_DATE = date(1900, 1, 1)


def is_birth_date(born: date, today: date) -> bool:
    """Whether a living person can be born then: whoever takes a birth date asks."""
    return _FIRST_BIRTH_DATE <= born <= today


class Identity(PersonalData, data_class="identity"):
    name: Line = category("user.name")
    birth_date: date | None = category("user.demographic.date_of_birth", default=None)


class Contact(PersonalData, data_class="contact"):
    email: Email = category("user.contact.email")
    phone: Phone | None = category("user.contact.phone_number", default=None)


class IdentityCorrection(PersonalData, data_class="identity"):
    """What of an `Identity` is to be another; the rest stays as it is."""

    name: Line | None = category("user.name", default=None)
    birth_date: date | None = category("user.demographic.date_of_birth", default=None)


class ContactCorrection(PersonalData, data_class="contact"):
    """What of a `Contact` is to be another; the rest stays as it is."""

    email: Email | None = category("user.contact.email", default=None)
    phone: Phone | None = category("user.contact.phone_number", default=None)


class Credentials(PersonalData, data_class="credentials"):
    password_hash: str = category("user.authorization.password", max_length=256)


class Address(PersonalData, data_class="contact"):
    """One entry of the address book; its anchor is the address, so it can be erased alone."""

    name: Line = category("user.name")
    company: Line | None = category("user.contact", default=None)
    lines: tuple[Line, ...] = category("user.contact.address.street", min_length=1, max_length=3)
    city: Line = category("user.contact.address.city")
    state: Line | None = category("user.contact.address.state", default=None)
    postal_code: Line | None = category("user.contact.address.postal_code", default=None)
    country: Country = category("user.contact.address.country")
    phone: Phone | None = category("user.contact.phone_number", default=None)


class Favourite(PersonalData, data_class="behaviour"):
    sku: Line = category("user.behavior.purchase_history")


class Browsing(PersonalData, data_class="behaviour"):
    page: Line = category("user.behavior.browsing_history")
    sku: Line | None = category("user.behavior.browsing_history", default=None)


class AccountRegistered(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    guest: bool = False
    identity: Sealed[Identity] | None = about(subject="subject_id", anchor="subject_id")
    contact: Sealed[Contact] = about(subject="subject_id", anchor="subject_id")


class IdentityChanged(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    number: Version
    identity: Sealed[Identity] = about(subject="subject_id", anchor="subject_id")


class ContactChanged(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    number: Version
    contact: Sealed[Contact] = about(subject="subject_id", anchor="subject_id")


class AddressSaved(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    address_id: UUID
    number: Version
    address: Sealed[Address] = about(subject="subject_id", anchor="address_id")


class AddressDeleted(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    address_id: UUID


class FavouriteAdded(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    favourite_id: UUID
    favourite: Sealed[Favourite] = about(subject="subject_id", anchor="favourite_id")


class FavouriteRemoved(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    subject_id: UUID
    favourite_id: UUID


class ContactDisclosed(Event, topic=ACCOUNT_EVENTS, key="subject_id"):
    """A mail to a person was recorded: what of their contact leaves with it, to the mail provider, by which template."""

    mail_id: UUID
    subject_id: UUID
    recipient: SystemName
    template: LaneId
    policy_version: PolicyVersion
    data_class: DataClass
    purpose: Purpose
    fields: Annotated[tuple[FieldPath, ...], Field(max_length=100)]


class BrowsingKind(StrEnum):
    PAGE_VIEWED = "page_viewed"
    PRODUCT_VIEWED = "product_viewed"
    SEARCHED = "searched"


class BrowsingRecorded(Event, topic=BROWSING_EVENTS, key="subject_id"):
    """One look at a page. `month_id` is the anchor: browsing is kept and erased by the month."""

    subject_id: UUID
    browsing_id: UUID
    month_id: UUID
    kind: BrowsingKind
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    browsing: Sealed[Browsing] = about(subject="subject_id", anchor="month_id")


EVENTS: tuple[type[Event], ...] = (
    AccountRegistered,
    IdentityChanged,
    ContactChanged,
    ContactDisclosed,
    AddressSaved,
    AddressDeleted,
    FavouriteAdded,
    FavouriteRemoved,
    BrowsingRecorded,
)
