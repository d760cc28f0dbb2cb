"""Code types: the only strings that may stand outside `PersonalData` (law L10).

A code is a short word from a closed or machine-made vocabulary. Free text is not a code.
"""

from typing import Annotated, Final

from pydantic import Field, StringConstraints


class Code:
    """Marks an annotated `str` as a code type; `rules.py` accepts no other string."""


def _code(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern, strict=True)


Country = Annotated[str, Code(), _code(r"^[A-Z]{2}$")]  # ISO 3166-1 alpha-2
Currency = Annotated[str, Code(), _code(r"^[A-Z]{3}$")]  # ISO 4217
Sku = Annotated[str, Code(), _code(r"^[A-Z0-9][A-Z0-9-]{1,31}$")]
HsCode = Annotated[str, Code(), _code(r"^[0-9]{6,10}$")]  # WCO Harmonized System
SystemName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,31}$")]
DataClass = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,31}$")]
Purpose = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,31}$")]
LaneId = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,47}$")]
PolicyVersion = Annotated[str, Code(), _code(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[0-9]+)?$")]
# A word of ours, such as the reason of a decision; the name of a reader; an operator's account on the machine.
Word = Annotated[str, Code(), _code(r"^[a-z][a-z_]{1,39}$")]
ReaderName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9-]{1,39}$")]
OperatorName = Annotated[str, Code(), _code(r"^[a-z][a-z0-9._-]{1,31}$")]
FieldPath = Annotated[str, Code(), _code(r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")]

# Integer minor units of an ISO 4217 currency, and other bounded numbers.
MAX_MINOR: Final = 10**11
Minor = Annotated[int, Field(ge=0, le=MAX_MINOR)]
Quantity = Annotated[int, Field(ge=1, le=999)]
Grams = Annotated[int, Field(ge=1, le=1_000_000)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
