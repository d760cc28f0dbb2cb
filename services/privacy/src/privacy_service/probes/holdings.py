"""The table of the probes holds pseudonyms of people."""

from typing import Final

from servicekit import Holding

PROBES: Final = Holding("probes", subject="subject_id", anchor="request_id", sealed={}, plain=("asked_at",))
