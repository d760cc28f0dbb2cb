"""The HTTP API of the account service. Routes translate; what happens stands in `handlers` and the modules beside it."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from account_service import addresses, browsing, favourites, handlers, notices, page_views, registrations, schemas
from account_service.entries import Entry
from account_service.handlers import Account
from account_service.settings import AccountSettings
from account_service.sign_in import REGISTER_PEER, SIGN_IN_PEER, Access
from event_contracts.account import Address, Contact, Favourite, Identity
from event_contracts.moments import bounded
from servicekit import Customer, Kit, Limit, Page, Paging, customer, limited, new_id, paging
from servicekit.core.errors import Misconfigured
from servicekit.http.peers import peer

_member = customer(guests=False)
Who = Annotated[Customer, Depends(customer())]
Member = Annotated[Customer, Depends(_member)]
# Of what a stranger makes, and of what a member makes.
StrangersId = Annotated[UUID, Depends(new_id())]
MembersId = Annotated[UUID, Depends(new_id(_member))]
Paged = Annotated[Paging, Depends(paging)]

# What makes keys, versions and events of one person.
CHANGES: Final = Limit("changes", 60, 60)
BROWSING: Final = Limit("browsing", 60, 60)


def make_router(kit: Kit) -> APIRouter:
    """All routes. Raises `Misconfigured` without the key that signs customers' tokens."""
    if not isinstance(kit.settings, AccountSettings):
        raise Misconfigured("The account service was started without its own settings: see account_service.app.")
    access = Access(kit.settings, kit.clock, kit.limits)
    router = APIRouter(prefix="/v1")
    _add_entrance(router, kit, access)
    _add_account(router, kit)
    _add_addresses(router, kit)
    _add_favourites(router, kit)
    _add_browsing(router, kit)
    return router


def _add_entrance(router: APIRouter, kit: Kit, access: Access) -> None:
    @router.post(
        "/accounts",
        openapi_extra=limited(REGISTER_PEER),
        status_code=202,
        summary="Register: a mail brings the code to confirm",
        tags=["accounts"],
    )
    async def register(
        subject_id: StrangersId, body: schemas.RegistrationBody, request: Request
    ) -> schemas.RegistrationAnswer:
        """The same answer whether or not the address has an account."""
        new = registrations.Registration(
            Identity(name=body.name, birth_date=body.birth_date),
            Contact(email=body.email, phone=body.phone),
            body.password.get_secret_value(),
            body.language,
        )
        await registrations.register(kit, access, subject_id, new, peer(request.scope))
        return schemas.RegistrationAnswer(registration_id=subject_id)

    @router.post("/accounts/{registration_id}/confirmation", summary="Confirm the e-mail address", tags=["accounts"])
    async def confirm(registration_id: UUID, body: schemas.ConfirmationBody, request: Request) -> schemas.SubjectAnswer:
        """The account exists from now on; its id is that of the registration."""
        code, password = body.code.get_secret_value(), body.password.get_secret_value()
        await registrations.confirm(kit, access, registration_id, code, password, peer(request.scope))
        return schemas.SubjectAnswer(subject_id=registration_id)

    @router.post(
        "/sign-in",
        openapi_extra=limited(SIGN_IN_PEER),
        summary="Sign in with e-mail address and password",
        tags=["accounts"],
    )
    async def sign_in(body: schemas.SignInBody, request: Request) -> schemas.TokenAnswer:
        token = await handlers.sign_in(kit, access, body.email, body.password.get_secret_value(), peer(request.scope))
        return schemas.TokenAnswer(access_token=token.text, expires_in=token.expires_in)

    @router.post(
        "/guests",
        openapi_extra=limited(REGISTER_PEER),
        status_code=201,
        summary="Begin as a guest, without an account",
        tags=["accounts"],
    )
    async def add_guest(subject_id: StrangersId, body: schemas.GuestBody, request: Request) -> schemas.GuestAnswer:
        contact = Contact(email=body.email, phone=body.phone)
        token = await handlers.add_guest(kit, access, subject_id, contact, body.language, peer(request.scope))
        return schemas.GuestAnswer(subject_id=subject_id, access_token=token.text, expires_in=token.expires_in)


def _add_account(router: APIRouter, kit: Kit) -> None:
    @router.get("/accounts/me", summary="Read one's own data", tags=["accounts"])
    async def show_account(who: Who) -> schemas.AccountAnswer:
        return _account_answer(await handlers.show_account(kit, who.subject_id))

    @router.patch("/accounts/me", openapi_extra=limited(CHANGES), summary="Edit one's own data", tags=["accounts"])
    async def edit_account(who: Member, body: schemas.EditBody) -> schemas.AccountAnswer:
        changes = body.model_dump(exclude_unset=True, exclude={"country"})
        return _account_answer(await handlers.edit_account(kit, who.subject_id, changes))

    @router.get("/accounts/me/notices", summary="What happened to one's orders, newest first", tags=["notices"])
    async def list_notices(who: Who, paged: Paged) -> Page[schemas.NoticeAnswer]:
        page = await notices.list_notices(kit, who.subject_id, paged)
        items = [
            schemas.NoticeAnswer(order_id=row["order_id"], kind=row["kind"], at=bounded(row["at"]))
            for row in page.items
        ]
        return Page(items=items, next=page.next)


def _account_answer(account: Account) -> schemas.AccountAnswer:
    identity, contact = account.identity, account.contact
    return schemas.AccountAnswer(
        subject_id=account.subject_id,
        guest=account.guest,
        language=account.language,
        registered_at=account.registered_at,
        identity=identity
        and schemas.IdentityAnswer(number=account.identity_number, name=identity.name, birth_date=identity.birth_date),
        contact=contact
        and schemas.ContactAnswer(number=account.contact_number, email=contact.email, phone=contact.phone),
    )


def _add_addresses(router: APIRouter, kit: Kit) -> None:
    @router.post(
        "/accounts/me/addresses",
        openapi_extra=limited(CHANGES),
        status_code=201,
        summary="Add to the address book",
        tags=["addresses"],
    )
    async def add_address(who: Member, address_id: MembersId, body: schemas.AddressBody) -> schemas.AddressIdAnswer:
        await addresses.add_address(kit, who.subject_id, address_id, Address(**body.model_dump()))
        return schemas.AddressIdAnswer(address_id=address_id)

    @router.get("/accounts/me/addresses", summary="The address book, newest first", tags=["addresses"])
    async def list_addresses(who: Member, paged: Paged) -> Page[schemas.AddressAnswer]:
        page = await addresses.list_addresses(kit, who.subject_id, paged)
        return Page(items=[_address_answer(entry) for entry in page.items], next=page.next)

    @router.get("/accounts/me/addresses/{address_id}", summary="One address", tags=["addresses"])
    async def show_address(who: Member, address_id: UUID) -> schemas.AddressAnswer:
        return _address_answer(await addresses.show_address(kit, who.subject_id, address_id))

    @router.put(
        "/accounts/me/addresses/{address_id}",
        openapi_extra=limited(CHANGES),
        status_code=204,
        summary="Correct it",
        tags=["addresses"],
    )
    async def replace_address(who: Member, address_id: UUID, body: schemas.AddressBody) -> Response:
        await addresses.replace_address(kit, who.subject_id, address_id, Address(**body.model_dump()))
        return Response(status_code=204)

    @router.delete("/accounts/me/addresses/{address_id}", status_code=204, summary="Delete it", tags=["addresses"])
    async def delete_address(who: Member, address_id: UUID) -> Response:
        await addresses.delete_address(kit, who.subject_id, address_id)
        return Response(status_code=204)


def _address_answer(entry: Entry[Address]) -> schemas.AddressAnswer:
    address = entry.value and schemas.AddressValue.model_validate(entry.value)
    row = entry.row
    return schemas.AddressAnswer(
        address_id=row["address_id"], number=row["number"], added_at=row["added_at"], address=address
    )


def _add_favourites(router: APIRouter, kit: Kit) -> None:
    @router.post(
        "/accounts/me/favourites",
        openapi_extra=limited(CHANGES),
        status_code=201,
        summary="Add a favourite",
        tags=["favourites"],
    )
    async def add_favourite(
        who: Member, favourite_id: MembersId, body: schemas.FavouriteBody
    ) -> schemas.FavouriteIdAnswer:
        await favourites.add_favourite(kit, who.subject_id, favourite_id, Favourite(sku=body.sku))
        return schemas.FavouriteIdAnswer(favourite_id=favourite_id)

    @router.get("/accounts/me/favourites", summary="One's favourites, newest first", tags=["favourites"])
    async def list_favourites(who: Member, paged: Paged) -> Page[schemas.FavouriteAnswer]:
        page = await favourites.list_favourites(kit, who.subject_id, paged)
        return Page(items=[_favourite_answer(entry) for entry in page.items], next=page.next)

    @router.delete("/accounts/me/favourites/{favourite_id}", status_code=204, summary="Remove it", tags=["favourites"])
    async def delete_favourite(who: Member, favourite_id: UUID) -> Response:
        await favourites.delete_favourite(kit, who.subject_id, favourite_id)
        return Response(status_code=204)


def _favourite_answer(entry: Entry[Favourite]) -> schemas.FavouriteAnswer:
    return schemas.FavouriteAnswer(
        favourite_id=entry.row["favourite_id"],
        added_at=entry.row["added_at"],
        sku=entry.value and entry.value.sku,
    )


def _add_browsing(router: APIRouter, kit: Kit) -> None:
    @router.post(
        "/browsing-events",
        summary="Record browsing: CloudEvents, one or up to 500",
        tags=["browsing"],
        openapi_extra={**page_views.describe(), **limited(BROWSING)},
    )
    async def record_browsing(
        who: Who, views: Annotated[page_views.PageViews, Depends(page_views.read_page_views)]
    ) -> schemas.RecordedAnswer:
        """An event of a batch that holds a payment card number is left out and counted, and the others are recorded."""
        recorded = await browsing.record_browsing(kit, who.subject_id, views.kept)
        return schemas.RecordedAnswer(recorded=recorded, known=len(views.kept) - recorded, left_out=views.left_out)

    @router.get("/accounts/me/browsing", summary="One's own browsing, newest first", tags=["browsing"])
    async def list_browsing(who: Who, paged: Paged) -> Page[schemas.BrowsingAnswer]:
        page = await browsing.list_browsing(kit, who.subject_id, paged)
        items = [
            schemas.BrowsingAnswer(
                browsing_id=entry.row["browsing_id"],
                at=entry.row["at"],
                kind=entry.row["kind"],
                seconds=entry.row["seconds"],
                page=entry.value and entry.value.page,
                sku=entry.value and entry.value.sku,
            )
            for entry in page.items
        ]
        return Page(items=items, next=page.next)
