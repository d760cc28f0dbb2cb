"""The toolkit of the shop's services. What a service needs stands here; docs/storefront.md explains each name.

The packages below (`core`, `db`, `http`, `kafka`, `vault`, `participant`, `app`) are for the product's own services.
"""

from servicekit.app.service import Job, Service, main
from servicekit.core import errors
from servicekit.core.logs import get_log
from servicekit.core.settings import Settings
from servicekit.db.postgres import Record, Tx
from servicekit.http.auth import Customer, Staff, customer, staff
from servicekit.http.ids import new_id
from servicekit.http.limits import Limit, limited
from servicekit.http.paging import Cursor, Page, Paging, paging
from servicekit.kafka.cloudevents import Received, RecordId
from servicekit.kafka.consuming import Consumes
from servicekit.kit import Kit, Opening
from servicekit.participant.holdings import Holding

__all__ = [
    "Consumes",
    "Cursor",
    "Customer",
    "Holding",
    "Job",
    "Kit",
    "Limit",
    "Opening",
    "Page",
    "Paging",
    "Received",
    "Record",
    "RecordId",
    "Service",
    "Settings",
    "Staff",
    "Tx",
    "customer",
    "errors",
    "get_log",
    "limited",
    "main",
    "new_id",
    "paging",
    "staff",
]
