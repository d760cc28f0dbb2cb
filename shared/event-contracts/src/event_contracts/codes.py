"""Code types: the only strings that may stand outside `PersonalData` (law L10).

A code is a short word from a closed or machine-made vocabulary. Free text is not a code.
"""

from typing import Annotated, Final

from pydantic import Field, StringConstraints


class Code:
    """Marks an annotated `str` as a code type; `rules.py` accepts no other string."""


# One text of each form, for people who sent another.
EXAMPLES: Final[dict[str, str]] = {}


def _code(pattern: str, example: str) -> StringConstraints:
    EXAMPLES[pattern] = example
    return StringConstraints(pattern=pattern, strict=True)


Country = Annotated[str, Code(), _code(r"^[A-Z]{2}$", "NL")]  # ISO 3166-1 alpha-2
Currency = Annotated[str, Code(), _code(r"^[A-Z]{3}$", "EUR")]  # ISO 4217
Sku = Annotated[str, Code(), _code(r"^[A-Z0-9][A-Z0-9-]{1,31}$", "TEA-GREEN-100")]
HsCode = Annotated[str, Code(), _code(r"^[0-9]{6,10}$", "090210")]  # WCO Harmonized System
SystemName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,31}$", "account")]
DataClass = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,31}$", "delivery")]
Purpose = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,31}$", "delivery")]
LaneId = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,47}$", "meridian-eu-standard")]
PolicyVersion = Annotated[str, Code(), _code(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[0-9]+)?$", "2026-11-01")]
# A word of ours, such as the reason of a decision; the names of a reader and a topic; an operator's account on the machine.
Word = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,39}$", "wrong_address")]
ReaderName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,39}$", "inventory")]
TopicName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{0,39}(\.[a-z0-9-]{1,39}){1,3}$", "order.events")]
OperatorName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9._-]{1,31}$", "jane.doe")]
FieldPath = Annotated[str, Code(), _code(r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$", "consignee.phone")]

# Integer minor units of an ISO 4217 currency, and other bounded numbers.
MAX_MINOR: Final = 10**11
Minor = Annotated[int, Field(ge=0, le=MAX_MINOR)]
Quantity = Annotated[int, Field(ge=1, le=999)]
Grams = Annotated[int, Field(ge=1, le=1_000_000)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
