"""`make faults-selftest`: for each invariant a planted defect, and whether the test that its patch names turns red.

python -m tests.faults.selftest [word …]     all invariants, or those with one of the words in them
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from tests.defects.run import CAUGHT, judging, read_all

# Of all planted defects those that switch off what the rows of `rows.py` rely on.
INVARIANTS: Final[Mapping[str, str]] = {
    "fence: a person who was erased gets no key": "L3-fenced-subject-gets-a-key",
    "fence: a key that is gone is never handed out": "L3-fenced-key-is-handed-out",
    "fence: no writer gets a key that is gone": "L3-gone-key-is-taken-up-again",
    "fence: a destroyed generation is never made again": "L3-destroyed-generation-again",
    "inbox: one event has one effect": "L4-inbox-off",
    "outbox: an event is committed with its state": "L4-event-after-the-commit",
    "relay: by what is unpublished, not by cursor": "L4-relay-follows-a-number",
    "relay: one at an aggregate": "L4-two-relays-at-one-aggregate",
    "relay: no mark before Kafka has it": "L4-marked-before-it-is-sent",
    "reader: no acknowledgement before the commit": "L4-position-before-effects",
    "reader: a zombie has no second effect": "L4-position-not-checked",
    "reader: order per aggregate": "L4-events-of-one-aggregate-by-type",
    "fence: leases are waited out": "L3-wait-out-skipped",
    "fence: writers under way are waited for": "L3-drain-not-waited-for",
    "fence: a service stores nothing that is fenced": "L3-service-stores-what-is-fenced",
    "restore: no database is served as it was": "L11-restored-database-is-served-as-it-is",
    "erasure: rows that are left are no end": "L5-rows-that-are-left-are-an-end",
    "erasure: silence is no success": "L5-silence-reads-as-success",
    "reader: no more is fetched than is applied": "L12-fetching-without-a-limit",
    "vault: an unknown key does not read as erased": "L3-unknown-key-reads-as-erased",
    "vault: away does not read as erased": "L11-vault-away-reads-as-erased",
    "vault: away skips no record": "L11-vault-away-skips-the-record",
    "token: bound to its subject": "L7-token-not-bound-to-its-subject",
    "lane: nothing passes through": "L9-the-whole-delivery-leaves",
    "gateway: recorded before it is sent": "L9-sent-before-it-is-recorded",
    "log: no payload": "L1-logs-print-any-value",
    "log: no error's text": "L1-logs-print-exceptions",
    "quarantine: sealed": "L1-quarantine-in-clear",
}

# The control of each kind of attack (`make attack`): without its protection the attack works.
ATTACKS: Final[Mapping[str, str]] = {
    "an id is a name: no caller chooses one": "L2-ids-taken-from-the-header",
    "an id is a name: requests about known people only": "L2-request-about-any-id",
    "an id is a name: a new person is new": "L2-new-person-with-anothers-id",
    "one key, two bodies": "L2-retry-of-another-order",
    "mail: no address in the queue": "L1-address-in-the-queue-of-mails",
    "mail: nothing after an erasure": "L3-mail-after-an-erasure",
    "registration: an unconfirmed address finds nobody": "L2-unconfirmed-address-in-the-directory",
    "a stranger's body: read after the caller is known": "L13-body-read-before-the-caller-is-known",
    "a stranger's body: linear checks": "L13-card-check-reads-a-text-again-and-again",
    "a stranger's head: bounded": "L13-heads-without-a-limit",
    "a stranger's connection: closed in time": "L13-half-sent-requests-stay",
    "a stranger's connections: bounded for each peer": "L13-silent-connections-keep-others-out",
    "a stranger's tries: counted": "L13-strangers-are-not-counted",
    "stated times: bounded": "L13-times-without-bounds",
    "stated times: our clock decides retention": "L8-carriers-time-decides-retention",
    "poison: one aggregate does not stop the reader": "L13-one-aggregates-poison-stops-the-reader",
    "poison: bad replies do not park good ones": "L13-bad-reply-parks-good-ones",
    "poison: what is parked takes no effect": "L4-parked-record-takes-effect",
    "records: another topic is noticed": "L4-position-without-its-record",
    "records: a cancellation is remembered": "L4-cancellation-forgotten",
    "writers: those after the fence's begin count": "L3-horizon-from-completed-ids",
    "writers: other databases do not": "L13-every-transaction-of-the-server-counts",
    "holders: a renewed lease holds nothing up": "L13-renewed-lease-holds-erasures-up",
    "participants: speak for their own classes": "L8-expired-data-of-others-counts",
    "downloads: hold no erasure up": "L13-slow-download-holds-erasures-up",
    "texts: no commands for a printer": "L9-printers-commands-leave",
    "grants: cell by cell": "L7-lease-without-a-grant",
    "tokens of callers: verified": "L11-tokens-believed-without-a-key",
}


def main(words: Sequence[str]) -> int:
    """Prints the table, a line as soon as it is known; 1 when a defect was not caught, 2 when a patch is missing."""
    wanted = {
        name: patch
        for name, patch in (INVARIANTS | ATTACKS).items()
        if not words or any(w in f"{name} {patch}" for w in words)
    }
    defects = {defect.name: defect for defect in read_all()}
    missing = sorted(set(wanted.values()) - defects.keys())
    if missing or not wanted:
        print(f"No such patch in tests/defects: {', '.join(missing) or ' '.join(words)}")
        return 2
    print("| invariant | planted defect | test | caught |\n|---|---|---|---|", flush=True)
    caught = 0
    with judging([defects[patch] for patch in wanted.values()]) as verdicts:
        for name, patch in wanted.items():
            defect = defects[patch]
            verdict = verdicts[defect].result()
            caught += verdict == CAUGHT
            told = "yes" if verdict == CAUGHT else f"NO: {verdict.splitlines()[0]}"
            print(f"| {name} | {patch} | {defect.test.removeprefix('tests/')} | {told} |", flush=True)
    print(f"\n{caught} of {len(wanted)} invariants turn their test red when they are broken.")
    return 0 if caught == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
