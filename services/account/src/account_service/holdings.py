"""Where the account service holds personal data."""

from event_contracts.account import Address, Browsing, Contact, Credentials, Favourite, Identity
from servicekit.holdings import Holding

ACCOUNTS = Holding(
    "accounts",
    subject="subject_id",
    anchor="subject_id",
    sealed={"identity": Identity, "contact": Contact, "credentials": Credentials},
    plain=["guest", "email_digest", "identity_number", "contact_number", "registered_at"],
)
ADDRESSES = Holding(
    "addresses",
    subject="subject_id",
    anchor="address_id",
    sealed={"address": Address},
    plain=["number", "added_at"],
)
FAVOURITES = Holding(
    "favourites", subject="subject_id", anchor="favourite_id", sealed={"favourite": Favourite}, plain=["added_at"]
)
BROWSING = Holding(
    "browsing",
    subject="subject_id",
    anchor="month_id",
    sealed={"browsing": Browsing},
    plain=["browsing_id", "kind", "seconds", "at"],
)
NOTICES = Holding("notices", subject="subject_id", anchor="order_id", sealed={}, plain=["kind", "notice_id", "at"])

HOLDINGS = (ACCOUNTS, ADDRESSES, FAVOURITES, BROWSING, NOTICES)
