"""The faults that the system must survive, by row, and those of them that have no test here, each with its reason.

Every other row needs at least one test with the marker `fault(row, "what goes wrong")`: `tests/faults/plugin.py`.
"""

from typing import Final

ROWS: Final[dict[int, str]] = {
    1: "kill -9 of any role at every fault point, again during recovery, two roles at once",
    2: "the broker dies, or is away while the outbox piles up",
    3: "Postgres dies every second",
    4: "the answer to a commit is lost",
    5: "the answer to a produce is lost; an offset commit is lost or refused",
    6: "every record is delivered 1 to 5 times, shuffled across partitions and topics",
    7: "a rebalance in the middle of the work; a zombie consumer",
    8: "a hot subject; a slow consumer; a slow handler",
    9: "poison records",
    10: "an event whose key is destroyed",
    11: "a new group replays every topic after an erasure",
    12: "a restore of one database, of the vault, of Kafka, of all, from before an erasure",
    13: "a vault's backup from before the epoch horizon",
    14: "a wrong or an empty vault",
    15: "a late event about somebody erased; a late tracking event with a name in it",
    16: "an erasure during an open order, a hold, an export, another erasure, a rectification",
    17: "a crash between a key's destruction and its evidence",
    18: "a carrier that is down, slow or hostile",
    19: "a service cut off from Postgres, Kafka or the vault",
    20: "a full disk",
    21: "clocks that are off or jump; edges of the calendar",
    22: "a change of policy or lane in the middle of a saga; rolling upgrades; migrations under load",
    23: "rotation of the KEK under load; a crash while re-wrapping",
    24: "evidence that was edited, cut, reordered, signed anew or rolled back",
    25: "two people decide at once; a double click",
    26: "SIGTERM under load",
    27: "a consumer group loses its offsets",
    28: "errors whose text has a personal value in it",
    29: "a stated time that is out of range or that nobody can know",
    30: "poison by the thousand from one carrier, person or participant; repeats of a stuck request",
    31: "partitions are added, a topic is made anew, transactions abort, commit markers stand in a topic",
    32: "silent, slow and half-sent connections; endless headers; a costly body without a token",
    33: "an idle transaction of another role or an operator's shell",
    34: "a lease holder that renews and never reports",
    35: "a slow or broken download",
    36: "a poison record with later records of the same aggregate in the same batch",
    37: "a participant that lies about what it or others hold",
    39: "an id taken from an event, a backup, the evidence log or a certificate",
    40: "a change that loses the race: one Idempotency-Key with two bodies",
}

# What a row names and this product does not have. A fault that should be tested and is not does not belong here.
ABSENT: Final[dict[tuple[int, str], str]] = {
    (18, "429, 500, an endless body, a redirect, bad TLS, DNS rebinding"): (
        "carriers are reached over Kafka only: nothing here sends an HTTP request to an address that somebody else chose"
    ),
}
