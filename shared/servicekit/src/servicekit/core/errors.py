"""Typed errors. The class docstring is the message: what happened, why, what to do; never a value that came from a
person.

`code` names the error for programs (logs, metrics, the problem's `type`), `status` is what HTTP answers at the edge.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar, Final

from pydantic import BaseModel

MAX_FIELDS: Final = 50
# The code of a field whose form is another than is expected.
OTHER_FORM: Final = "other_form"


class KitError(Exception):
    """Something unexpected failed in this service. Try again later; the operator finds the cause in the log."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, detail: str | None = None) -> None:
        """`detail` replaces the class's message; it is written by us, never taken from input."""
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        super().__init__(self.detail)


class Misconfigured(KitError):
    """The process cannot start as configured. Set what the message names and start again."""

    code = "misconfigured"


class Invalid(KitError):
    """The request is not valid for this resource. Correct it and send it again."""

    code = "invalid"
    status = 422


class FieldProblem(BaseModel):
    """What is wrong with one field. `at` is its path in the body, such as `lines.0.sku`, or begins with `query`, `path` or
    `header`; a name that we did not define reads `*`. `expected` says what the field may hold, with an example.
    """

    at: str
    code: str
    expected: str | None = None


class InvalidFields(Invalid):
    """Some fields are missing or not valid: `errors` lists them. Correct them and send the request again."""

    def __init__(self, fields: Sequence[FieldProblem]) -> None:
        super().__init__()
        self.fields = list(fields[:MAX_FIELDS])


class KeyReused(Invalid):
    """The Idempotency-Key was used for another request body. Send this request with a fresh key."""

    code = "key_reused"


class CardNumber(Invalid):
    """The request contains a payment card number. Send the payment provider's verification token instead."""

    code = "card_number"


class Malformed(KitError):
    """The body cannot be read in the format that its content type names. Correct it and send it again."""

    code = "malformed"
    status = 400


class Unauthenticated(KitError):
    """The request carries no valid access token, or sign-in failed. Sign in and try again."""

    code = "unauthenticated"
    status = 401


class Forbidden(KitError):
    """Whoever asks has no right to do this. Ask the owner of the policy document for a grant."""

    code = "forbidden"
    status = 403


class NotFound(KitError):
    """There is no such resource for you. Check its id."""

    code = "not_found"
    status = 404


class NoSuchKey(NotFound):
    """The vault has no key of this id with this subject, class and anchor. Check that the vault is the right one."""

    code = "unknown_key"


class Gone(KitError):
    """This was made before, and what was made is erased since. Nothing was made now; use a fresh Idempotency-Key."""

    code = "gone"
    status = 410


class Conflict(KitError):
    """The request contradicts what is stored. Read the resource again and decide."""

    code = "conflict"
    status = 409


class Fenced(Conflict):
    """The person's data is being or was erased, so nothing new can be sealed for them."""

    code = "fenced"


class HolderBehind(Conflict):
    """This process has long not reported that its work with revoked keys has ended, so the vault leases it no keys.
    It gets keys again once it reports, or once its leases are over."""

    code = "holder_behind"


class TooLarge(KitError):
    """The request body is larger than this route allows. Send less at once."""

    code = "too_large"
    status = 413


class UnsupportedMedia(KitError):
    """This route does not read this content type. The API's description lists those that it does."""

    code = "unsupported_media"
    status = 415


class TooMany(KitError):
    """Too many requests. Wait as long as Retry-After says and try again."""

    code = "too_many"
    status = 429

    def __init__(self, retry_after: float = 60, detail: str | None = None) -> None:
        """`retry_after` in seconds."""
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(KitError):
    """A part that this service cannot work without does not answer. Nothing was done or lost; try again later."""

    code = "unavailable"
    status = 503


class Taken(Conflict):
    """The new person's id has a key that another service made. Nothing was made; send the request with a fresh key."""

    code = "taken"


class Doubtful(Unavailable):
    """The database did not carry out a statement. Nothing was done or lost; try again later. When this repeats while the
    server answers others, the statement itself is to blame."""


class SchemaMismatch(KitError):
    """The database's schema is not the one this code was written for. Run `migrate` of the same version first."""

    code = "schema_mismatch"
    status = 503


class LookAgain(Unavailable):
    """What stands in a topic may be something else than what this reader knows. It joins again and compares first."""

    code = "look_again"


class PartitionsDiffer(Unavailable):
    """A topic has another number of partitions than the list of topics says, so keys would change their partition and events
    their order. Nothing is sent to it until they agree: the operator's manual says how the number is changed.
    """

    code = "partitions_differ"

    def __init__(self, topics: frozenset[str]) -> None:
        super().__init__()
        self.topics = topics


class KafkaRefuses(Unavailable):
    """Kafka does not let this process's user write to a topic, or read it: the topic's entry in the list of topics lacks it."""

    code = "kafka_refuses"

    def __init__(self, user: str, topics: Sequence[str], *, writes: bool) -> None:
        entry = f'"owner": "{user}"' if writes else f'"{user}" among its "consumers"'
        super().__init__(
            f"Kafka refuses the user {user} to {'write to' if writes else 'read'} {', '.join(topics)}. In the list of topics "
            f"(ours or your topics.json) the entry of each lacks {entry}: add it and create the ACLs from the list again. "
            f"If it is there, the ACLs are older than the list, or KAFKA_USER is another system's."
        )
        self.topics = tuple(topics)


class PositionLost(KitError):
    """Another process has moved this reader's position, so this one has lost its partitions:
    it rolls back and rejoins.
    """

    code = "position_lost"


class DeliveryFailed(KitError):
    """What a committed batch had to send could not be sent. The reader rejoins, and then sends what is recorded."""

    code = "delivery_failed"


class UnknownKey(KitError):
    """The vault does not know the key of a stored value: this is never an erasure. Check that it is the right vault."""

    code = "unknown_key"


class Poison(KitError):
    """A record cannot be processed, however often it is tried. It goes to quarantine with this reason."""

    code = "poison"

    def __init__(self, reason: str, records: Collection[tuple[str, int, int]] = ()) -> None:
        """`reason` is a code such as `wrong_producer`, never text from the record.

        Who works on many records at once names those that are meant, by topic, partition and offset.
        """
        super().__init__()
        self.reason = reason
        self.records = tuple(records)
