"""What staff ask the inventory, and what everybody may read of the policy."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from country_data.emails import read_email
from country_data.fields import CountryCode
from country_data.phones import read_phone
from privacy_service.inventory import handlers
from privacy_service.policy_page import render_policy
from servicekit import Cursor, Kit, Limit, Page, Paging, Record, Staff, limited, paging, staff
from servicekit.core.policy import Policy, Retention

FINDS_PER_MINUTE: Final = 30
FINDS: Final = Limit("find", FINDS_PER_MINUTE, 60)
LOOKS: Final = Limit("looks", 120, 60)

_Staff = Annotated[Staff, Depends(staff("support", "privacy_officer"))]


class FindBody(BaseModel):
    """What to search for. The term travels in the body only and shows in no repr. `country`: whose phone it is, if it is
    written without + and the country's code.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    by: handlers.Term
    country: CountryCode | None = None
    term: Annotated[SecretStr, Field(min_length=1, max_length=320)]

    @field_validator("term")
    @classmethod
    def _as_it_is_kept(cls, term: SecretStr, info: ValidationInfo) -> SecretStr:
        """In the form that the services keep, of which the digests are made."""
        match info.data.get("by"):
            case "email":
                return SecretStr(read_email(term.get_secret_value()))
            case "phone" if "country" in info.data:
                return SecretStr(read_phone(term.get_secret_value(), info.data["country"]))
        return term


class Held(BaseModel):
    data_class: str
    anchor: UUID


class FoundSubject(BaseModel):
    """A person behind the term, with those of their data that name it."""

    subject_id: UUID
    held: list[Held]


class Found(BaseModel):
    items: list[FoundSubject]


class ReceivedBy(BaseModel):
    """A recipient outside, and which fields left on which lane."""

    recipient: str
    title: str
    lane: str
    lane_version: int
    fields: list[str]
    first_seen: datetime
    last_seen: datetime


class InventoryItem(BaseModel):
    """What one system holds about the person. What its class means is the policy in force, not that of the event's day.

    `holders` are all systems that may hold data of this class: each of them answers a rights request.
    """

    system: str
    data_class: str
    title: str
    anchor: UUID
    categories: list[str]
    purposes: list[str]
    retention: Retention | None
    holders: list[str]
    recipients: list[ReceivedBy]
    first_seen: datetime
    last_seen: datetime


def make_router(kit: Kit) -> APIRouter:
    """The routes of the role `api`."""
    router = APIRouter()
    page = render_policy(kit.policy)

    @router.post("/v1/find", openapi_extra=limited(FINDS))
    async def find(body: FindBody, who: _Staff) -> Found:
        """People by e-mail address, phone or order number."""
        found = await handlers.find_subjects(kit, who, body.by, body.term.get_secret_value())
        return Found(
            items=[
                FoundSubject(
                    subject_id=subject_id,
                    held=[Held(data_class=name.data_class, anchor=name.anchor) for name in names],
                )
                for subject_id, names in found.items()
            ]
        )

    @router.get("/v1/subjects/{subject_id}/inventory", openapi_extra=limited(LOOKS))
    async def inventory(
        subject_id: UUID, who: _Staff, wanted: Annotated[Paging, Depends(paging)]
    ) -> Page[InventoryItem]:
        """Who holds what about one person, who received it, oldest first; empty when nothing is known."""
        rows, recipients = await handlers.look_up_inventory(kit, who, subject_id, wanted)
        items = [_item(kit.policy, row, recipients) for row in rows]
        return wanted.page(items, [Cursor(row["first_seen"], row["place"]) for row in rows])

    @router.get("/v1/policy")
    async def policy() -> dict[str, Any]:
        """The policy document in force, without what only the services need (grants and limits)."""
        return kit.policy.model_dump(mode="json", exclude={"grants", "limits"})

    @router.get("/policy", response_class=HTMLResponse)
    async def policy_page() -> HTMLResponse:
        """The policy in force, for people (clause V2)."""
        return HTMLResponse(page)

    return router


def _item(policy: Policy, row: Record, recipients: Sequence[Record]) -> InventoryItem:
    rule = policy.classes.get(row["data_class"])  # None: a newer policy has dropped a class that is still held
    return InventoryItem(
        system=row["system"],
        data_class=row["data_class"],
        title=rule.title if rule else "Not in the policy in force",
        anchor=row["anchor"],
        categories=rule.categories if rule else [],
        purposes=rule.purposes if rule else [],
        retention=rule.retention if rule else None,
        holders=sorted({row["system"], *(n for n, s in policy.systems.items() if row["data_class"] in s.holds)}),
        recipients=[
            _received(policy, each)
            for each in recipients
            if (each["anchor"], each["data_class"]) == (row["anchor"], row["data_class"])
        ],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
    )


def _received(policy: Policy, row: Record) -> ReceivedBy:
    recipient = policy.recipients.get(row["carrier"])
    return ReceivedBy(
        recipient=row["carrier"],
        title=recipient.title if recipient else "Not in the policy in force",
        lane=row["lane"],
        lane_version=row["lane_version"],
        fields=row["fields"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
    )
