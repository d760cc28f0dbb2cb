"""All metric names in one place. Labels are codes of ours only (topics, routes, data classes), never ids or input."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

HTTP_REQUESTS = Counter("http_requests", "Answered requests", ["method", "route", "status"])
HTTP_SECONDS = Histogram("http_request_seconds", "Time to answer", ["method", "route"], buckets=_FAST)
CONNECTIONS_CLOSED = Counter("http_connections_closed", "Connections ended by a deadline or for others", ["reason"])
RATE_LIMITED = Counter("rate_limited", "Requests refused by a rate limit", ["limit"])
CARD_NUMBERS_REFUSED = Counter("card_numbers_refused", "Requests refused because they held a payment card number")

OUTBOX_DEPTH = Gauge("outbox_depth", "Committed events that are not yet published")
PARTITIONS_DIFFER = Gauge(
    "partitions_differ", "1 while a topic has another number of partitions than its list says", ["topic"]
)
OUTBOX_PUBLISHED = Counter("outbox_published", "Events acknowledged by Kafka", ["topic"])
PRODUCER_REBUILDS = Counter("producer_rebuilds", "Producers that were thrown away because they were wedged")

CONSUMED = Counter("consumed", "Records whose effect is committed", ["topic"])
CONSUME_BATCHES = Counter("consume_batches", "Batches committed, each in one transaction", ["topic"])
CONSUMER_LAG = Gauge("consumer_lag", "Records not yet processed", ["reader", "topic", "partition"])
READER_STOPPED = Gauge("reader_stopped", "Partitions that wait for an operator", ["reader", "topic", "reason"])
CONSUME_RETRIES = Counter("consume_retries", "Tries of a batch after its first", ["topic"])
POSITION_LOST = Counter("position_lost", "Batches given up because another process has the partition", ["topic"])
DUPLICATES = Counter("duplicates", "Records whose effect was there already", ["topic"])
IGNORED = Counter("records_ignored", "Records of a kind that this reader has no use for", ["topic"])
QUARANTINED = Counter("quarantined", "Records put into quarantine", ["topic", "reason"])
NOT_KEPT = Counter(
    "quarantine_not_kept", "Bad records from outside for which quarantine had no room", ["topic", "reason"]
)
QUARANTINE_ENDED = Counter("quarantine_ended", "Records that left quarantine", ["reader", "outcome"])
QUARANTINE_WAITING = Gauge("quarantine_waiting", "Records that wait in quarantine", ["reader"])
QUARANTINE_OLDEST = Gauge("quarantine_oldest_seconds", "Age of the oldest record that waits in quarantine", ["reader"])
QUARANTINE_FULL = Gauge(
    "quarantine_full", "1 while a reader stops because records of too many aggregates fail", ["reader"]
)

SEALED = Counter("sealed", "Values sealed", ["data_class"])
OPENED = Counter("opened", "Values opened", ["data_class", "purpose"])
OPENED_ERASED = Counter("opened_erased", "Values that were asked for and are erased", ["data_class", "purpose"])
VAULT_CALLS = Counter("vault_calls", "Requests to the vault", ["call", "outcome"])
VAULT_SECONDS = Histogram("vault_call_seconds", "Time of a request to the vault", ["call"], buckets=_FAST)
VAULT_CACHED_KEYS = Gauge("vault_cached_keys", "Leased keys in memory")
KEYS_ENSURED = Counter("keys_ensured", "Keys handed to writers by the vault", ["system", "data_class"])
KEYS_LEASED = Counter("keys_leased", "Keys leased to readers by the vault", ["system", "data_class", "purpose"])
LEASES_REFUSED = Counter("leases_refused", "Requests that the vault refused", ["system", "reason"])

REVOCATIONS_APPLIED = Counter("revocations_applied", "Entries of the list of revocations applied to the database")
ERASED_ROWS = Counter("erased_rows", "Rows that went, or lost a sealed part, because a key was revoked")
PARTS_LEFT_OUT = Counter("parts_left_out", "Sealed parts that were not stored because their key is revoked")
WRITES_FENCED = Counter("writes_fenced", "Transactions rolled back because what they wrote names a revoked key")

ANSWERS_OUT_OF_SCOPE = Counter(
    "answers_out_of_scope", "What a system said of data that is not its own", ["system", "answer"]
)
EVIDENCE_SET_ASIDE = Counter("evidence_set_aside", "Times that a malformed leaf was kept out of the evidence log")
EVIDENCE_ASIDE = Gauge("evidence_aside", "Malformed leaves that wait outside the evidence log")
EARLY_REPLIES_DROPPED = Counter(
    "early_replies_dropped", "Replies about unknown shipments for which there was no room", ["carrier"]
)
SHIPMENTS_BLOCKED = Gauge("shipments_blocked", "Shipments that cannot leave, by why", ["reason"])
SHIPMENTS_GIVEN_UP = Counter(
    "shipments_given_up", "Shipments ended because they were blocked, or silent, too long", ["end"]
)
SET_ASIDE = Counter(
    "set_aside", "Times that one request failed by itself and was put off, so that others go on", ["work"]
)
OPEN_TOO_LONG = Counter("open_too_long", "Anchors still open after their longest time; they hold nothing up", ["owner"])

MAILS = Counter("mails", "Mails by the state that they came to", ["state"])
MAILS_WAITING = Gauge("mails_waiting", "Mails that are recorded and not sent yet")

TX_RETRIES = Counter("tx_retries", "Transactions run again after a conflict", ["name"])
JOB_RUNS = Counter("job_runs", "Runs of periodic jobs", ["job", "outcome"])
FAULT_HITS = Counter("fault_hits", "Fault points that were armed and reached", ["point"])

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render() -> bytes:
    """All metrics of this process in the Prometheus text format."""
    return generate_latest()
