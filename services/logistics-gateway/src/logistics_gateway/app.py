"""All the wiring of the gateway."""

from datetime import timedelta
from pathlib import Path

from event_contracts.carrier import replies_topic
from event_contracts.logistics_gateway import EVENTS
from event_contracts.order import ORDER_EVENTS, DeliveryCorrected, OrderCancelled, OrderPlaced
from event_contracts.privacy import PRIVACY_COMMANDS, RecipientsTold, TellRecipients
from event_contracts.topics import CARRIERS
from logistics_gateway.cancellations import cancel_late
from logistics_gateway.erasures import apply_recipients
from logistics_gateway.handlers import apply_orders, deliver_orders, prepare_orders, retry_blocked
from logistics_gateway.holdings import HOLDINGS
from logistics_gateway.http import make_router
from logistics_gateway.replies import apply_replies, prepare_replies, read_reply, retry_early
from logistics_gateway.republish import say_again
from logistics_gateway.sending import catch_up, idle, open_gateway, send_erasures, send_stale
from logistics_gateway.settings import GatewaySettings
from logistics_gateway.stuck import end_blocked, end_silent
from servicekit import Consumes, Job, Service

ORDERS = Consumes(
    topics=(ORDER_EVENTS,),
    contracts=(OrderPlaced, DeliveryCorrected, OrderCancelled),
    prepare=prepare_orders,
    apply=apply_orders,
    deliver=deliver_orders,
    assigned=catch_up,
    idle=idle,
    reader="orders",
)
# A reader for each carrier, so that what one of them gets wrong parks nothing of another's.
REPLIES = tuple(
    Consumes(
        topics=(replies_topic(carrier),),
        decode=read_reply,
        prepare=prepare_replies,
        apply=apply_replies,
        reader=f"replies-{carrier}",
        outside=True,
    )
    for carrier in CARRIERS
)
# What it does follows from the ledger, so an answer may be given twice; a command that comes again is another one.
RECIPIENTS = Consumes(
    topics=(PRIVACY_COMMANDS,),
    contracts=(TellRecipients,),
    apply=apply_recipients,
    reader="recipients",
    inbox=True,
    repeats=True,
)

SERVICE = Service(
    "logistics-gateway",
    emits=(*EVENTS, RecipientsTold),
    consumes=[ORDERS, *REPLIES, RECIPIENTS],
    router=make_router,
    holdings=HOLDINGS,
    jobs=[
        Job("retry_blocked", timedelta(seconds=30), retry_blocked),
        Job("send_erasures", timedelta(seconds=1), send_erasures),
        Job("send_stale", timedelta(seconds=30), send_stale),
        Job("cancel_late", timedelta(seconds=30), cancel_late),
        Job("end_blocked", timedelta(seconds=60), end_blocked),
        Job("end_silent", timedelta(seconds=60), end_silent),
        Job("retry_early", timedelta(seconds=30), retry_early),
    ],
    migrations=Path(__file__).parent / "migrations",
    settings=GatewaySettings,
    own=open_gateway,
    say_again=say_again,
    package="logistics-gateway",
)
