"""The certificate: what was done for a request, as signed JSON that anybody checks offline. Pure; no personal data."""

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from evidence_log.checkpoint import Signer
from evidence_log.leaves import CertificateIssued, Json, KeyFact, canonical, plain

FORMAT: Final = "privacy-certificate/1"
# What two certificates may differ in and still say the same.
_FRAME: Final = frozenset(("certificate_id", "issued_at", "amendment", "previous"))

# What no certificate covers, in words. Each certificate lists the codes with these sentences.
NOT_COVERED: Final = {
    "amounts_and_times": "Amounts, currencies and times of orders, which events and rows hold in clear without a name.",
    "carriers_copies": "What a carrier printed or stored before it was told; its own answer is in `recipients`.",
    "carrier_topic": "Messages in a carrier's topic, which its own key opens until the day in `topic_clean_at`.",
    "evidence": "Random ids of people and staff in the evidence log itself.",
    "mails": "Mails that were sent before, in the person's mailbox and at the mail provider.",
    "pseudonyms": "Random ids of people and orders in events, until the retention of their topic ends.",
    "quarantine": "Records in quarantine, sealed under a key of the service and day that dies after 14 days.",
    "raw_bytes_and_kek": "Somebody with raw bytes of the vault and its key-encrypting key, until the day in `horizon`.",
}


@dataclass(frozen=True, slots=True)
class ParticipantFact:
    """What one system said: rows `erased` for the request, and rows `left` although their key is revoked (0: none)."""

    system: str
    subject_id: UUID
    erased: int
    left: int


@dataclass(frozen=True, slots=True)
class HoldFact:
    """What stays, why (`basis`: open_anchor, legal_obligation, litigation, …) and until when; None while that is open.

    An open anchor goes when it closes, and on that day at the latest.
    """

    subject_id: UUID
    data_class: str
    anchor: UUID
    basis: str
    until: datetime | None
    row_count: int


@dataclass(frozen=True, slots=True)
class RecipientFact:
    """Shipments of one recipient, how many of them it was `told` about, and how many it `answered` for."""

    subject_id: UUID
    recipient: str
    shipments: int
    told: int
    answered: int
    topic_clean_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProbeFact:
    """A system was asked again after the keys were destroyed: rows `left`."""

    system: str
    subject_id: UUID
    left: int
    probed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """All that a certificate says. `data_classes` None: all of them. `horizon` is the day from which on the destroyed keys
    are gone for everybody; None when no key was destroyed."""

    request_id: UUID
    kind: str
    subject_ids: Sequence[UUID]
    data_classes: Sequence[str] | None
    policy_version: str
    issued_at: datetime
    participants: Sequence[ParticipantFact] = ()
    keys: Sequence[KeyFact] = ()
    holds: Sequence[HoldFact] = ()
    recipients: Sequence[RecipientFact] = ()
    probes: Sequence[ProbeFact] = ()
    horizon: date | None = None
    not_covered: Sequence[str] = field(default_factory=lambda: tuple(NOT_COVERED))


def build(facts: CertificateFacts, certificate_id: UUID, amendment: int, previous: bytes | None) -> dict[str, Any]:
    """The members of a certificate; `previous` is the body of the one that it amends. Raises ValueError for what is no fact."""
    said = plain(facts)
    clean = [each.topic_clean_at for each in facts.recipients if each.topic_clean_at is not None]
    return {
        "certificate_id": str(certificate_id),
        "request_id": said["request_id"],
        "kind": said["kind"],
        "amendment": amendment,
        "previous": None if previous is None else sha256(previous).hexdigest(),
        "issued_at": said["issued_at"],
        "subjects": said["subject_ids"],
        "data_classes": said["data_classes"],
        "participants": said["participants"],
        "keys": said["keys"],
        "holds": said["holds"],
        "recipients": said["recipients"],
        "probes": said["probes"],
        "policy_version": said["policy_version"],
        "horizon": said["horizon"],
        "topic_clean_at": plain(max(clean)) if clean else None,
        "not_covered": [{"code": code, "words": NOT_COVERED[code]} for code in facts.not_covered],
    }


def says_the_same(certificate: Json, other: bytes) -> bool:
    """Whether the stored certificate `other` states the same facts."""
    theirs = json.loads(other)
    return {n: v for n, v in certificate.items() if n not in _FRAME} == {
        n: v for n, v in theirs.items() if n not in _FRAME
    }


def digest(value: Any) -> str:
    """SHA-256 (hex) of a value in canonical JSON."""
    return sha256(canonical(value)).hexdigest()


def leaf_of(certificate: Json, facts: CertificateFacts) -> CertificateIssued:
    """What the log records of a certificate: a digest of each member, so that a change is found and located."""
    return CertificateIssued(
        certificate_id=UUID(certificate["certificate_id"]),
        request_id=facts.request_id,
        amendment=certificate["amendment"],
        members={name: digest(value) for name, value in certificate.items()},
        at=facts.issued_at,
    )


def document(signer: Signer, body: bytes, leaf: bytes, index: int, path: Sequence[bytes], note: str) -> bytes:
    """The certificate with what proves it, sealed by the log's key part by part, in canonical JSON.

    Raises ValueError when the stored certificate is not the one that the log records.
    """
    certificate, recorded = json.loads(body), json.loads(leaf)
    if not hmac.compare_digest(
        canonical(recorded["members"]), canonical({n: digest(v) for n, v in certificate.items()})
    ):
        raise ValueError("the stored certificate is not the one that the log records")
    evidence = {"leaf": recorded, "leaf_index": index, "inclusion": [h.hex() for h in path], "checkpoint": note}
    digests = {"certificate": digest(certificate), **{f"evidence.{n}": digest(v) for n, v in evidence.items()}}
    return canonical(
        {"format": FORMAT, "certificate": certificate, "evidence": evidence, "seal": _seal(signer, digests)}
    )


def _seal(signer: Signer, digests: Mapping[str, str]) -> dict[str, Any]:
    signature = signer.key.sign(f"{FORMAT}\n".encode() + canonical(digests))
    return {"digests": digests, "signature": base64.b64encode(signature).decode()}
