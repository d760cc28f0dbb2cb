"""Writes docs/capacity.md from .local/bench.json: what 100 million people and 50,000 orders a second would take, on paper.

`python -m tests.bench.capacity`. The figures are measured, the assumptions stand in the page, the rest is arithmetic.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import ceil

from deploy.local.services import ROOT

SUBJECTS, ORDERS = 100_000_000, 50_000
ORDERS_A_YEAR = 12
KEYS_OF_ACCOUNT, KEYS_OF_ORDER, KEYS_MEASURED = 3, 3, 6
# Years that a key lives: delivery 180 days, payment 13 months, order record 10 years (policy.yaml).
YEARS = 180 / 365 + 13 / 12 + 10
EVENTS, EVENT_BYTES, REPLICAS, READERS, DAYS_IN_KAFKA = 8, 1_500, 3, 4, 365
BROKER_BYTES, SHARD_BYTES = 100e6, 2e12
ERASED_A_YEAR = 0.02
HEADROOM = 2  # nothing is planned to run at more than half of what it can

# Without these there is no page; a stage that was not measured says so in its line.
NEEDED = (
    "erasure_per_s",
    "bytes_per_subject",
    "rss_mb",
    "orders_per_s",
    "leased_keys_per_s",
    "gateway_cold_events_per_s",
)

PAGE = """# Capacity, on paper

What {subjects} people and {orders} orders a second would take, computed by `python -m tests.bench.capacity` from figures of
`make bench` on a machine of two cores, on which load, Kafka, Postgres and all services ran side by side. So a "process" here
is one that had a part of two cores; on machines of its own it does more. It is arithmetic on measured figures, no promise.

## Assumed

- Everybody orders {orders_a_year} times a year: {average} orders/s on average, {orders} at the peak. An order is {events} events of
  {event_bytes} bytes.
- A person has {keys_of_account} keys for the account and {keys_of_order} for each order, which live as long as the policy keeps
  their class (180 days, 13 months, 10 years).
- Kafka keeps events for {days} days on {replicas} replicas. A broker takes {broker_mb} MB/s; a Postgres shard holds {shard_tb} TB.
- At the peak everything runs at half of what it can. {erased_a_year} of all people are erased each year.

## Processes at the peak

| | wanted | measured, one process | processes |
|---|---|---|---|
{table}

One set of all processes takes {rss} MB of memory.

## Kafka

- {flow} MB/s written, {flow_replicas} MB/s with replicas, {flow_read} MB/s read: **{brokers} brokers**.
- **{partitions} partitions** for `order.events` and `shipment.events`, as many as their largest consumer has processes.
- {kafka_tb} TB for {days} days at the average, with replicas.

## Keys and storage

- **{keys} billion living keys**, nearly all of them of order records, which tax law keeps for ten years.
- {key_bytes} bytes a key with its index entries and its share of directory and inventory (measured: {subject_bytes} bytes a person
  with {keys_measured} keys): **{stored_tb} TB** in vault and inventory together.
- **{shards} shards** by person: {by_bytes} for the bytes, {by_rows} for {row_rate} rows/s at the peak. The tables are
  hash-partitioned by person already.
- To re-wrap all keys into a new KEK epoch within 30 days is {rewrapped} keys/s over all shards.

## Erasures

{erased} people a second on average. Measured are {erasures}/s, which is {erasures_a_day} a day and {erasure_times} times as many.

## What breaks first

1. **{first}**: {first_count} processes. {first_reason}
2. **{second}**: {second_count} processes. {second_reason}
3. **One vault database.** Keys are looked up and made by person, so it shards; the list of revocations does not: its numbers come
   from one locked row. It carries erasures only, never orders: it bounds erasures a second and not the shop.
4. **The directory.** A search by e-mail address or order number asks every shard, because digests do not lie with the person.
   Staff search seldom; sign-in has an index of its own in the account service.
5. **The evidence log** has one sequencer. It takes whole batches, so its limit is bytes and not leaves.
6. **Re-wrapping**: what an epoch's end costs grows with all living keys. One key a person and year for order records would take
   most of them away, at the price that an order record is no longer erased alone.
"""


def page(m: Mapping[str, float]) -> str:
    """Markdown, from the figures by name. Raises KeyError when one is missing."""
    keys = SUBJECTS * (KEYS_OF_ACCOUNT + ORDERS_A_YEAR * YEARS)
    stored = keys * m["bytes_per_subject"] / KEYS_MEASURED
    average = SUBJECTS * ORDERS_A_YEAR / (365 * 86_400)
    row_rate = ORDERS * (KEYS_OF_ORDER + 1)
    stages = {
        "order API": (ORDERS, m.get("orders_per_s"), "orders/s"),
        "relay": (ORDERS * EVENTS, m.get("relay_events_per_s"), "events/s"),
        "gateway": (ORDERS, m.get("gateway_cold_events_per_s"), "orders/s"),
        "inventory": (ORDERS * EVENTS, m.get("inventory_cold_events_per_s"), "events/s"),
        "vault": (row_rate, m.get("leased_keys_per_s"), "keys/s made or leased"),
    }
    counts = {name: ceil(HEADROOM * wanted / can) if can else 0 for name, (wanted, can, _) in stages.items()}
    ranked = sorted(counts, key=lambda name: -counts[name])
    flow = ORDERS * EVENTS * EVENT_BYTES / 1e6
    rows = 3 * m.get("upsert_cold_events_per_s", 0)  # an event has three parts
    by_rows = ceil(HEADROOM * row_rate / rows) if rows else 0
    by_bytes = ceil(stored / SHARD_BYTES)
    erased = SUBJECTS * ERASED_A_YEAR / (365 * 86_400)
    lines = [_line(name, *stages[name], counts[name]) for name in ranked]
    return PAGE.format(
        subjects=f"{SUBJECTS:,}", orders=f"{ORDERS:,}", orders_a_year=ORDERS_A_YEAR, average=f"{average:,.0f}",
        events=EVENTS, event_bytes=f"{EVENT_BYTES:,}", keys_of_account=KEYS_OF_ACCOUNT, keys_of_order=KEYS_OF_ORDER,
        days=DAYS_IN_KAFKA, replicas=REPLICAS, broker_mb=f"{BROKER_BYTES / 1e6:.0f}", shard_tb=f"{SHARD_BYTES / 1e12:.0f}",
        erased_a_year=f"{ERASED_A_YEAR:.0%}", table="\n".join(lines), rss=f"{m['rss_mb']:,.0f}", flow=f"{flow:,.0f}",
        flow_replicas=f"{flow * REPLICAS:,.0f}", flow_read=f"{flow * READERS:,.0f}",
        brokers=ceil(HEADROOM * flow * 1e6 * REPLICAS / BROKER_BYTES),
        partitions=ceil(max(counts["gateway"], counts["inventory"]) / 12) * 12,
        kafka_tb=f"{average * EVENTS * EVENT_BYTES * 86_400 * DAYS_IN_KAFKA * REPLICAS / 1e12:,.0f}",
        keys=f"{keys / 1e9:,.1f}", key_bytes=f"{m['bytes_per_subject'] / KEYS_MEASURED:,.0f}",
        subject_bytes=f"{m['bytes_per_subject']:,.0f}", keys_measured=KEYS_MEASURED, stored_tb=f"{stored / 1e12:,.1f}",
        shards=max(by_bytes, by_rows), by_bytes=by_bytes, by_rows=by_rows or "(not measured)", row_rate=f"{row_rate:,}",
        rewrapped=f"{keys / 30 / 86_400:,.0f}", erased=f"{erased:.2f}", erasures=f"{m['erasure_per_s']:,.0f}",
        erasures_a_day=f"{m['erasure_per_s'] * 86_400:,.0f}", erasure_times=f"{m['erasure_per_s'] / erased:,.0f}",
        first=ranked[0], first_count=f"{counts[ranked[0]]:,}", first_reason=REASONS[ranked[0]],
        second=ranked[1], second_count=f"{counts[ranked[1]]:,}", second_reason=REASONS[ranked[1]],
    )  # fmt: skip


def _line(name: str, wanted: int, can: float | None, unit: str, count: int) -> str:
    measured, processes = (f"{can:,.0f}", f"{count:,}") if can else ("not measured", "")
    return f"| {name} | {wanted:,} {unit} | {measured} | {processes} |"


REASONS = {
    "order API": "Each order is checked and sealed for itself. It is stateless: more processes, and shards behind them.",
    "relay": "It publishes in order per aggregate, from sixteen slots a database; more shards bring more slots.",
    "gateway": "Its partitions bound it: as many processes as partitions, no more.",
    "inventory": "It sees every event of every service. Its partitions bound it, and a producer can leave out what names nobody.",
    "vault": "Three new keys and a lease for each order, over HTTP. Keys by month and not by order would take most of it away.",
}


def main() -> int:
    listed = json.loads((ROOT / ".local" / "bench.json").read_text())
    measured = {each["name"]: each["value"] for each in listed if each["value"] is not None}
    missing = [name for name in NEEDED if name not in measured]
    if missing:
        print(f"Not measured: {', '.join(missing)}. Run `make bench` first.", file=sys.stderr)
        return 1
    (ROOT / "docs" / "capacity.md").write_text(page(measured))
    print("Written: docs/capacity.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
