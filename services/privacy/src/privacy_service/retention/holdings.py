"""The table of the keys that retention runs ask about holds pseudonyms of people."""

from typing import Final

from servicekit import Holding

KEY_LOOKS: Final = Holding(
    "key_looks",
    subject="subject_id",
    anchor="anchor",
    sealed={},
    plain=("data_class", "key_id", "look_at", "released_by"),
    key="key_id",
)
