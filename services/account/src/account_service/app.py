"""All the wiring of the account service."""

from pathlib import Path

from account_service import handlers, registrations
from account_service.holdings import HOLDINGS
from account_service.http import make_router
from account_service.mails import sending
from account_service.rectification import apply_rectification, prepare_rectification
from account_service.settings import AccountSettings
from event_contracts.account import EVENTS
from event_contracts.order import ORDER_EVENTS
from event_contracts.privacy import PRIVACY_COMMANDS, HoldingsRectified, RectifyHoldings
from servicekit import Consumes, Service

# A command that comes again finds its values in force, and makes no version.
RECTIFICATION = Consumes(
    (PRIVACY_COMMANDS,),
    contracts=(RectifyHoldings,),
    prepare=prepare_rectification,
    apply=apply_rectification,
    reader="rectification",
    inbox=True,
    repeats=True,
)

SERVICE = Service(
    "account",
    emits=(*EVENTS, HoldingsRectified),
    consumes=[
        Consumes((ORDER_EVENTS,), contracts=tuple(handlers.ORDER_HANDLERS), apply=handlers.apply_order_events),
        RECTIFICATION,
    ],
    holdings=HOLDINGS,
    router=make_router,
    jobs=[*sending.JOBS, *registrations.JOBS],
    own=sending.open_mailer,
    settings=AccountSettings,
    migrations=Path(__file__).parent / "migrations",
    package="account-service",
)
