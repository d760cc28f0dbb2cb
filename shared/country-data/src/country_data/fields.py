"""Parts of requests whose meaning depends on a country, read when a request is validated and kept in their normal form.

A model declares `country` before the fields that are read for it.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from country_data.addresses import read_postal_code, read_state
from country_data.countries import read_country
from country_data.currencies import read_currency
from country_data.emails import read_email
from country_data.phones import read_phone
from event_contracts.account import Email, Line


# A country that is refused stands not in `info.data`: its own error is enough.
def _read_state(text: str | None, info: ValidationInfo) -> str | None:
    return read_state(text, info.data["country"]) if "country" in info.data else text


def _read_postal_code(text: str | None, info: ValidationInfo) -> str | None:
    return read_postal_code(text, info.data["country"]) if "country" in info.data else text


def _read_phone(text: str, info: ValidationInfo) -> str:
    return read_phone(text, info.data["country"]) if "country" in info.data else text


_Text = Annotated[str, Field(max_length=200)]
CountryCode = Annotated[_Text, AfterValidator(read_country)]
CurrencyCode = Annotated[_Text, AfterValidator(read_currency)]
EmailAddress = Annotated[Email, AfterValidator(read_email)]
PhoneNumber = Annotated[_Text, AfterValidator(_read_phone)]
# These two are read also when they are absent: some countries need them.
State = Annotated[Line | None, AfterValidator(_read_state), Field(validate_default=True)]
PostalCode = Annotated[Line | None, AfterValidator(_read_postal_code), Field(validate_default=True)]


class Stated(BaseModel):
    """A part of what a person states. Nothing is converted and no unknown field is accepted; its repr shows no content."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


class StatedAddress(Stated):
    """An address as people of its country write it, in their own script; three lines at most.

    `state` and `postal_code` are needed where `address_rules` says so. `phone` is written as in the country, or with +.
    """

    country: CountryCode
    name: Line
    company: Line | None = None
    lines: Annotated[tuple[Line, ...], Field(min_length=1, max_length=3, strict=False)]
    city: Line
    state: State = None
    postal_code: PostalCode = None
    phone: PhoneNumber | None = None


class StatedConsignee(StatedAddress):
    email: EmailAddress | None = None
