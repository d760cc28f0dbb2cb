"""The published language of the shop: types only, no I/O, no crypto."""

from event_contracts.event import Event
from event_contracts.personal import Erased, PersonalData, Sealed, about, category

__all__ = ["Erased", "Event", "PersonalData", "Sealed", "about", "category"]
