"""Product reviews. What joins them to the system: two contracts, one transaction, one holding, one line of wiring."""

from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from event_contracts import Event, PersonalData, Sealed, about, category
from servicekit import Customer, Holding, Kit, Service, Tx, customer


class Reviewer(PersonalData, data_class="identity"):
    display_name: str = category("user.name")


class ReviewPosted(Event, topic="review.events", key="author_id"):
    review_id: UUID
    author_id: UUID
    stars: Annotated[int, Field(ge=1, le=5)]
    reviewer: Sealed[Reviewer] = about(subject="author_id", anchor="review_id")


async def post_review(kit: Kit, author_id: UUID, stars: int, name: str) -> UUID:
    review_id = uuid4()
    reviewer = await kit.seal(Reviewer(display_name=name), subject=author_id, anchor=review_id)
    event = ReviewPosted(review_id=review_id, author_id=author_id, stars=stars, reviewer=reviewer)

    async def work(tx: Tx) -> None:
        await tx.execute("INSERT INTO reviews VALUES ($1, $2, $3, $4)", review_id, author_id, stars, reviewer)
        await tx.emit(event)

    await kit.run_tx("post_review", work)
    return review_id


REVIEWS = Holding("reviews", subject="author_id", anchor="review_id", sealed={"reviewer": Reviewer}, plain=["stars"])


class NewReview(BaseModel):
    stars: Annotated[int, Field(ge=1, le=5)]
    display_name: Annotated[str, Field(min_length=1, max_length=100)]


def make_router(kit: Kit) -> APIRouter:
    """Beyond joining: what lets customers post."""
    router = APIRouter()

    @router.post("/v1/reviews", status_code=201)
    async def post(review: NewReview, who: Annotated[Customer, Depends(customer())]) -> dict[str, UUID]:
        return {"review_id": await post_review(kit, who.subject_id, review.stars, review.display_name)}

    return router


MIGRATIONS = Path(__file__).parent / "migrations"
SERVICE = Service("reviews", emits=[ReviewPosted], holdings=[REVIEWS], migrations=MIGRATIONS, router=make_router)
