"""A consignee's numbers with tax and customs authorities, as a shop states them. Pure.

Only the form is checked, not whether the authority knows the number: blanks, dots and dashes do not count, nor does case.
"""

import re
import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from event_contracts.order import Registration, RegistrationNumber
from servicekit.core.errors import OTHER_FORM

_BLANKS: Final = re.compile(r"\s+")
_SEPARATORS: Final = re.compile(r"[\s.\-/_]+")
# The country and up to eighteen more: Swiss numbers end in MWST, old Irish and Cypriot ones have a sign or letters.
_VAT: Final = re.compile(r"[A-Z]{2}[0-9A-Z+*]{2,18}")
# Commission Implementing Regulation (EU) 2015/2447, annex 12-01: the country and at most fifteen signs.
_EORI: Final = re.compile(r"[A-Z]{2}[0-9A-Z]{1,15}")
_FEWEST_SIGNS: Final = 3


def _vat(text: str) -> str:
    number = _SEPARATORS.sub("", _folded(text))
    if not _VAT.fullmatch(number):
        raise PydanticCustomError(OTHER_FORM, "A VAT number with the letters of its country, such as DE136695976.")
    return number


def _eori(text: str) -> str:
    number = _SEPARATORS.sub("", _folded(text))
    if not _EORI.fullmatch(number):
        raise PydanticCustomError(
            OTHER_FORM, "An EORI number: two letters and at most 15 signs, such as GB205672212000."
        )
    return number


def _tax_id(text: str) -> str:
    number = _BLANKS.sub("", _folded(text))
    if sum(sign.isalnum() for sign in number) < _FEWEST_SIGNS:
        raise PydanticCustomError(OTHER_FORM, "The tax number as its country writes it, such as 529.982.247-25.")
    return number


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).upper()


class PurchaseRegistration(BaseModel):
    """`vat` and `eori` begin with their country; `tax_id` is any other number that customs there asks for (CPF, EIN, RFC …)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
    vat: Annotated[RegistrationNumber, AfterValidator(_vat)] | None = None
    eori: Annotated[RegistrationNumber, AfterValidator(_eori)] | None = None
    tax_id: Annotated[RegistrationNumber, AfterValidator(_tax_id)] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


def registration_of(stated: PurchaseRegistration | None) -> Registration | None:
    """What is sealed; None when no number is stated."""
    found = Registration() if stated is None else Registration(**dict(stated))
    return None if found == Registration() else found
