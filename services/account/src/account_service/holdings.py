"""Where the account service holds personal data."""

from event_contracts.account import Address, Browsing, Contact, Credentials, Favourite, Identity
from servicekit import Holding

# A registration that nothing ever followed: no address, no favourite, no visit that is still kept, no order.
_ABANDONED = """CASE WHEN NOT EXISTS (SELECT FROM addresses a WHERE a.subject_id = t.subject_id)
                      AND NOT EXISTS (SELECT FROM favourites f WHERE f.subject_id = t.subject_id)
                      AND NOT EXISTS (SELECT FROM browsing b WHERE b.subject_id = t.subject_id)
                      AND NOT EXISTS (SELECT FROM notices n WHERE n.subject_id = t.subject_id) THEN t.registered_at END"""
# An address is of use as long as its owner orders something, by the time at which this service heard of it.
_LAST_ORDER = """greatest(t.added_at, (SELECT max(coalesce(n.recorded_at, n.at)) FROM notices n
                                        WHERE n.subject_id = t.subject_id))"""

ACCOUNTS = Holding(
    "accounts",
    subject="subject_id",
    anchor="subject_id",
    sealed={"identity": Identity, "contact": Contact, "credentials": Credentials},
    plain=["guest", "language", "email_digest", "identity_number", "contact_number", "registered_at", "listed"],
    # nobody signs in by an address that is erased, and another account may have it
    clears={"contact": ["email_digest"]},
    unused=_ABANDONED,
)
ADDRESSES = Holding(
    "addresses",
    subject="subject_id",
    anchor="address_id",
    sealed={"address": Address},
    plain=["number", "added_at"],
    unused=_LAST_ORDER,
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
    # A month closes at its end, also one that lies ahead: it is never open, so that an erasure need not wait for it.
    closed="(date_trunc('month', t.at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'",
)
NOTICES = Holding(
    "notices", subject="subject_id", anchor="order_id", sealed={}, plain=["kind", "notice_id", "at", "recorded_at"]
)
# The address stands in a row until the mail is sent; the row goes with the key of that address.
MAILS = Holding(
    "mails",
    subject="subject_id",
    anchor="subject_id",
    sealed={"contact": Contact},
    plain=[
        *("mail_id", "template", "about", "language", "key_id", "state", "reason", "tries"),
        *("recorded_at", "next_try_at", "ended_at"),
    ],
    key="key_id",
)
# For a day at most; what is confirmed moves to the account, under the same keys.
REGISTRATIONS = Holding(
    "registrations",
    subject="subject_id",
    anchor="subject_id",
    sealed={"identity": Identity, "contact": Contact, "credentials": Credentials},
    plain=["language", "tries", "registered_at"],
)

HOLDINGS = (ACCOUNTS, ADDRESSES, FAVOURITES, BROWSING, NOTICES, MAILS, REGISTRATIONS)
