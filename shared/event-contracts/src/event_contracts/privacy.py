"""What the privacy service asks of every participant, and what each answers on its own topic."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from event_contracts.account import ContactCorrection, IdentityCorrection
from event_contracts.codes import DataClass, FieldPath, OperatorName, ReaderName, SystemName, TopicName, Word
from event_contracts.event import Event
from event_contracts.moments import Moment
from event_contracts.order import DeliveryCorrection
from event_contracts.personal import PersonalData, Sealed, about, category

PRIVACY_COMMANDS = "privacy.commands"
# `*` is the system that answers: the ACL of its topic is its signature.
REPLIES = "*.replies"

RowCount = Annotated[int, Field(ge=0, le=10**9)]
# The place of an entry in the vault's list of revocations.
RevocationNumber = Annotated[int, Field(ge=0, le=10**11)]
Part = Annotated[int, Field(ge=1, le=10**6)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class CountHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant how many rows it holds about a person."""

    request_id: UUID
    subject_id: UUID


class HoldingsCounted(Event, topic=REPLIES, key="request_id"):
    """A participant's own count over all its holdings. None of it is personal."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    row_count: RowCount


class DescribeHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant what it holds about a person, by class and anchor: the base of a preview."""

    request_id: UUID
    subject_id: UUID


class HeldItem(_Part):
    """Rows of one class and anchor. While the anchor is open (an order under way) its service holds them;
    `closed_at` is when it closed, and null where the class has no such moment."""

    data_class: DataClass
    anchor: UUID
    row_count: RowCount
    is_open: bool
    closed_at: Moment | None


class HoldingsDescribed(Event, topic=REPLIES, key="request_id"):
    """One of `parts` parts of a participant's answer; one without items says that it holds nothing."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    part: Part
    parts: Part
    items: Annotated[tuple[HeldItem, ...], Field(max_length=1000)]


class EraseHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant to wait out its writers, to sweep again what the list of revocations names up to `number`,
    and to say what is left."""

    request_id: UUID
    subject_id: UUID
    number: RevocationNumber


class HoldingsErased(Event, topic=REPLIES, key="request_id"):
    """`erased` rows went for this request; `left` are still there although their key is revoked: 0 is the probe's success."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    number: RevocationNumber
    erased: RowCount
    left: RowCount


class KeyReleased(Event, topic=REPLIES, key="anchor"):
    """A system deleted all that it held under this key, by itself, and stores nothing under it again.

    The key goes when no row of any system is left under it."""

    subject_id: UUID
    system: SystemName
    data_class: DataClass
    anchor: UUID
    key_id: UUID


class TellRecipients(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks whoever disclosed data of an erased person which recipients know of the erasure, and which have answered."""

    request_id: UUID
    subject_id: UUID


class ToldRecipient(_Part):
    """Shipments of one recipient that an erasure concerns; `told` of it were sent the notice, `answered` confirmed it.

    `topic_clean_at` is the time after which nothing of them is left in the recipient's topic."""

    recipient: SystemName
    shipments: RowCount
    told: RowCount
    answered: RowCount
    topic_clean_at: Moment | None


class RecipientsTold(Event, topic=REPLIES, key="request_id"):
    """The whole state each time: sent when asked, and again whenever a recipient answers."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    recipients: Annotated[tuple[ToldRecipient, ...], Field(max_length=100)]


class ExportPart(PersonalData, data_class="export"):
    """Rows of one table of a participant as JSON: `{"table": …, "rows": [{column: value}]}`."""

    rows: str = category("user", max_length=900_000)


class ExportHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant to hand over what it holds about a person, sealed for this request."""

    request_id: UUID
    subject_id: UUID


class HoldingsExported(Event, topic=REPLIES, key="request_id"):
    """One part, numbered from 1 within one `attempt`; the one that `is_last` may hold no rows and then has no content."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    attempt: Part
    part: Part
    is_last: bool
    row_count: RowCount
    content: Sealed[ExportPart] | None = about(subject="subject_id", anchor="request_id")


class RectifyHoldings(Event, topic=PRIVACY_COMMANDS, key="request_id", version=2):
    """Support corrects a person's basic data; the system that owns it makes it a new version."""

    request_id: UUID
    subject_id: UUID
    identity: Sealed[IdentityCorrection] | None = about(subject="subject_id", anchor="subject_id")
    contact: Sealed[ContactCorrection] | None = about(subject="subject_id", anchor="subject_id")


class RectifyDelivery(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Support corrects to whom an order under way goes; the subject is its consignee."""

    request_id: UUID
    subject_id: UUID
    order_id: UUID
    delivery: Sealed[DeliveryCorrection] = about(subject="subject_id", anchor="order_id")


class Refusal(StrEnum):
    """Why the owner of data does not correct it: `email_taken` is another account's e-mail address; `not_under_way` an order
    that is not the person's, has left for its consignee, or would go to another country."""

    EMAIL_TAKEN = "email_taken"
    NOT_UNDER_WAY = "not_under_way"


class HoldingsRectified(Event, topic=REPLIES, key="request_id", version=2):
    """The owner's answer: the number of the version that is in force now, 0 when it holds no such data or refuses.

    `refused`: nothing was corrected, nor will be when it is asked again. `misfits`: what of it does not fit the carrier's lane,
    such as `too_long.consignee.lines`."""

    request_id: UUID
    subject_id: UUID
    system: SystemName
    number: Annotated[int, Field(ge=0, le=2**31 - 1)]
    refused: Refusal | None = None
    misfits: Annotated[tuple[FieldPath, ...], Field(max_length=20)] = ()


class FindExpired(Event, topic=PRIVACY_COMMANDS, key="request_id"):
    """Asks every participant which anchors of a class closed before a moment: what a retention run is to erase.

    With `unused` it asks for those that nobody has used since that moment, though they are not closed. `after_closed_at`
    and `after_anchor` are those of the last item of the page before."""

    request_id: UUID
    data_class: DataClass
    closed_before: Moment
    limit: Annotated[int, Field(ge=1, le=1000)]
    unused: bool = False
    after_closed_at: Moment | None = None
    after_anchor: UUID | None = None


class ExpiredItem(_Part):
    subject_id: UUID
    data_class: DataClass
    anchor: UUID
    closed_at: Moment


class ExpiredFound(Event, topic=REPLIES, key="request_id"):
    """The oldest first; `is_all` says whether the limit cut none off. What is unused is closed when it was last used."""

    request_id: UUID
    system: SystemName
    data_class: DataClass
    is_all: bool
    items: Annotated[tuple[ExpiredItem, ...], Field(max_length=1000)]


class QuarantineAction(StrEnum):
    """What became of records in quarantine: an operator had them tried again, or put away; or their key's days were over."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    EXPIRED = "expired"


class QuarantineDecided(Event, topic=REPLIES, key="decision_id"):
    """Records in a system's quarantine wait no longer: for the evidence log. `operator` and `reason` are absent where no
    operator decided; `number` is that of the record in its system's list, absent when several were meant."""

    decision_id: UUID
    system: SystemName
    reader: ReaderName
    action: QuarantineAction
    count: RowCount
    number: Annotated[int, Field(ge=1, le=10**11)] | None = None
    reason: Word | None = None
    operator: OperatorName | None = None


class PositionAction(StrEnum):
    """How a reader that was stopped goes on: with the next record that Kafka has, or with all that it has."""

    SKIP = "skip"
    RESET = "reset"


class PositionDecided(Event, topic=REPLIES, key="decision_id"):
    """An operator had a stopped reader go on in one partition, at the offset `onto` instead of `since`: for the evidence log."""

    decision_id: UUID
    system: SystemName
    reader: ReaderName
    at_topic: TopicName
    partition: Annotated[int, Field(ge=0, le=10**6)]
    action: PositionAction
    since: Annotated[int, Field(ge=0, le=10**11)]
    onto: Annotated[int, Field(ge=0, le=10**11)]
    reason: Word
    operator: OperatorName


EVENTS: tuple[type[Event], ...] = (
    CountHoldings,
    HoldingsCounted,
    DescribeHoldings,
    HoldingsDescribed,
    EraseHoldings,
    HoldingsErased,
    KeyReleased,
    TellRecipients,
    RecipientsTold,
    ExportHoldings,
    HoldingsExported,
    RectifyHoldings,
    RectifyDelivery,
    HoldingsRectified,
    FindExpired,
    ExpiredFound,
    QuarantineDecided,
    PositionDecided,
)
