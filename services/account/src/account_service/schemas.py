"""The bodies of requests and answers. Requests know no other fields than these; texts may be of any script."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from account_service.domain import REGISTRATION_LIFE, NoticeKind
from account_service.mails.domain import Language
from country_data.fields import CountryCode, EmailAddress, PhoneNumber, StatedAddress
from event_contracts.account import BrowsingKind, Line

# NIST SP 800-63B: length is what counts; the upper bound is for argon2's sake.
Password = Annotated[SecretStr, Field(min_length=12, max_length=128)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class RegistrationBody(Request):
    """`country` is that of the phone, when it is written without + and the country's code. It is not kept."""

    country: CountryCode | None = None
    email: EmailAddress
    password: Password
    name: Line
    birth_date: date | None = None
    phone: PhoneNumber | None = None
    language: Language = Language.EN


class ConfirmationBody(Request):
    """The code of the mail, and the password that the registration named."""

    code: Annotated[SecretStr, Field(min_length=1, max_length=40)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=128)]


class SignInBody(Request):
    email: EmailAddress
    password: Annotated[SecretStr, Field(min_length=1, max_length=128)]


class GuestBody(Request):
    """`country` as in `RegistrationBody`."""

    country: CountryCode | None = None
    email: EmailAddress
    phone: PhoneNumber | None = None
    language: Language = Language.EN


class EditBody(Request):
    """What is absent stays as it is; null takes away what may be missing. `country` as in `RegistrationBody`."""

    country: CountryCode | None = None
    name: Line = ""
    birth_date: date | None = None
    email: EmailAddress = ""
    phone: PhoneNumber | None = None
    language: Language = Language.EN


class AddressBody(StatedAddress):
    """An entry of the address book; `country_data` says what an address of the country needs."""


class FavouriteBody(Request):
    sku: Line


class RegistrationAnswer(BaseModel):
    """`expires_in` in seconds: as long as the address can be confirmed."""

    registration_id: UUID
    expires_in: int = int(REGISTRATION_LIFE.total_seconds())


class SubjectAnswer(BaseModel):
    subject_id: UUID


class TokenAnswer(BaseModel):
    """As RFC 6749 §5.1 names them; `expires_in` in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme, no secret
    expires_in: int


class GuestAnswer(TokenAnswer):
    subject_id: UUID


class IdentityAnswer(BaseModel):
    """`number` is the version: it goes up with every edit."""

    number: int
    name: str
    birth_date: date | None


class ContactAnswer(BaseModel):
    number: int
    email: str
    phone: str | None


class AccountAnswer(BaseModel):
    """A part is null when it is erased; a guest has no identity."""

    subject_id: UUID
    guest: bool
    language: Language
    registered_at: datetime
    identity: IdentityAnswer | None
    contact: ContactAnswer | None


class AddressIdAnswer(BaseModel):
    address_id: UUID


class AddressValue(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str
    company: str | None
    lines: tuple[str, ...]
    city: str
    state: str | None
    postal_code: str | None
    country: str
    phone: str | None


class AddressAnswer(BaseModel):
    """`address` is null when it is erased."""

    address_id: UUID
    number: int
    added_at: datetime
    address: AddressValue | None


class FavouriteIdAnswer(BaseModel):
    favourite_id: UUID


class FavouriteAnswer(BaseModel):
    """`sku` is null when it is erased."""

    favourite_id: UUID
    added_at: datetime
    sku: str | None


class BrowsingAnswer(BaseModel):
    """`page` and `sku` are null when they are erased."""

    browsing_id: UUID
    at: datetime
    kind: BrowsingKind
    seconds: int
    page: str | None
    sku: str | None


class RecordedAnswer(BaseModel):
    """How many events were new, how many were known already, and how many were left out for a payment card number in them."""

    recorded: int
    known: int
    left_out: int


class NoticeAnswer(BaseModel):
    order_id: UUID
    kind: NoticeKind
    at: datetime
