"""What mails there are and what may stand in them, pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from event_contracts import Sealed
from event_contracts.account import Contact

PURPOSE: Final = "notification"
RECIPIENT: Final = "mail-provider"
# The personal field that leaves with every mail. The fields of a template are not personal.
DISCLOSED: Final = ("contact.email",)
GIVE_UP_AFTER: Final = timedelta(days=3)
KEPT: Final = timedelta(days=30)
# To one address. Each kind has a count of its own, so that nobody keeps a notice away by causing mails of another kind.
MAILS_A_DAY: Final = 3
# Of registrations: fewer than an address gets in all, so that one stranger leaves a mail for the address's owner.
MAILS_A_DAY_FROM_A_PEER: Final = 2
_LONGEST_PAUSE: Final = timedelta(hours=1)


class Language(StrEnum):
    """The languages that mails are written in."""

    EN = "en"
    DE = "de"
    FR = "fr"
    ES = "es"


class Template(StrEnum):
    CONFIRM = "confirm"
    HAVE_ACCOUNT = "have_account"
    EMAIL_CHANGED = "email_changed"
    DELIVERY_CHANGED = "delivery_changed"


# Law L9: the only fields that a template may use. None of them is personal.
FIELDS: Final[Mapping[Template, frozenset[str]]] = {
    Template.CONFIRM: frozenset({"code", "link"}),
    Template.HAVE_ACCOUNT: frozenset({"link"}),
    Template.EMAIL_CHANGED: frozenset({"day"}),
    Template.DELIVERY_CHANGED: frozenset({"order_link"}),
}


@dataclass(frozen=True)
class Mail:
    """A mail as it is recorded. `contact` is the sealed address that it goes to, `about` what it is about.

    `version` tells mails of the same kind apart: it is recorded once, however often its cause is processed.
    """

    template: Template
    subject_id: UUID
    about: UUID
    version: int
    language: Language
    contact: Sealed[Contact]

    @property
    def mail_id(self) -> UUID:
        return uuid5(self.about, f"{self.subject_id}/{self.template}/{self.version}")


def pause_after(tries: int, first: timedelta) -> timedelta:
    """How long a mail waits after so many tries: twice as long each time, up to an hour."""
    return min(first * (1 << min(tries - 1, 12)), max(first, _LONGEST_PAUSE))
