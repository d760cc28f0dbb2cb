"""What the certificates of requests say, collected from the replies: a few statements, however many requests there are."""

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from uuid import UUID

from evidence_log.certificate import CertificateFacts, HoldFact, ParticipantFact, ProbeFact, RecipientFact
from evidence_log.leaves import KeyFact
from privacy_service.sagas import replies_store, store
from privacy_service.sagas.definition import Step
from servicekit import Kit, Record, Tx


async def facts_of(kit: Kit, tx: Tx, requests: Sequence[Record]) -> list[CertificateFacts]:
    """Of each request, in the same order."""
    ids = [request["request_id"] for request in requests]
    subjects = _grouped(await replies_store.read_subjects(tx, ids))
    replies = _grouped(await replies_store.read_last_replies(tx, ids))
    keys = _grouped(await replies_store.read_destroyed(tx, ids))
    recipients = _grouped(await replies_store.read_recipients(tx, ids))
    holds = await store.read_holds(tx, ids)
    return [
        CertificateFacts(
            request_id=request["request_id"],
            kind=request["kind"],
            subject_ids=[row["subject_id"] for row in subjects[request["request_id"]]],
            data_classes=None if request["data_classes"] is None else tuple(request["data_classes"]),
            policy_version=max(subjects[request["request_id"]], key=itemgetter("round"))["version"]
            or kit.policy.version,
            issued_at=kit.clock.now(),
            participants=[
                ParticipantFact(row["system"], row["subject_id"], row["erased"], row["left_over"])
                for row in replies[request["request_id"]]
                if row["step"] == Step.ERASE
            ],
            keys=[
                KeyFact(row["key_id"], row["subject_id"], row["data_class"], row["anchor"], row["fingerprint"])
                for row in keys[request["request_id"]]
            ],
            holds=[
                HoldFact(subject, hold.data_class, hold.anchor, hold.basis, hold.until, hold.rows)
                for (of, subject), each in holds.items()
                if of == request["request_id"]
                for hold in each
            ],
            recipients=[
                RecipientFact(
                    row["subject_id"],
                    row["recipient"],
                    row["shipments"],
                    row["told"],
                    row["answered"],
                    row["topic_clean_at"],
                )
                for row in recipients[request["request_id"]]
            ],
            probes=[
                ProbeFact(row["system"], row["subject_id"], row["left_over"], row["answered_at"])
                for row in replies[request["request_id"]]
                if row["step"] == Step.PROBE
            ],
            horizon=max((row["horizon"] for row in subjects[request["request_id"]] if row["horizon"]), default=None),
        )
        for request in requests
    ]


def _grouped(rows: Sequence[Record]) -> dict[UUID, list[Record]]:
    found: dict[UUID, list[Record]] = defaultdict(list)
    for row in rows:
        found[row["request_id"]].append(row)
    return found
