"""Every participant answers for itself, a third party included, and a silent one is named (L5, docs/proofs.md, 15)."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from deploy.local.http import open_http
from deploy.local.keys import customer_token, staff_token
from deploy.local.people import Crowd
from deploy.local.shop import Registered, Shop
from deploy.local.stack import Stack


def privacyctl(stack: Stack, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    token = staff_token(stack.keys, "support")
    environment = {**os.environ, "PRIVACY_URL": stack.url("privacy"), "PRIVACY_TOKEN": token}
    command = [str(Path(sys.executable).with_name("privacyctl")), *arguments, "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)
    return ran.returncode, json.loads(ran.stdout or '{"items": []}')["items"]


async def shop_and_review(stack: Stack) -> Registered:
    """One person with an account, an address, an order and a review."""
    crowd = Crowd(secrets.randbits(32))
    shop = Shop(stack.url("account"), stack.url("order"), stack.mailbox)
    who = await shop.register(next(crowd.customers(1)))
    await shop.save_address(who)
    await shop.place_order(who, crowd)
    await shop.close()
    headers = {"Authorization": f"Bearer {customer_token(stack.keys, who.subject_id)}"}
    review = {"stars": 5, "display_name": who.customer.person.name}
    async with open_http() as http:
        (await http.post(f"{stack.url('reviews')}/v1/reviews", json=review, headers=headers)).raise_for_status()
    return who


def probe(stack: Stack, subject_id: UUID, patience: int) -> tuple[int, dict[str, int | None]]:
    code, items = privacyctl(stack, "probe", str(subject_id), "--patience", str(patience))
    return code, {item["system"]: item["row_count"] for item in items}


def test_participants_count_what_they_hold_and_a_stopped_one_is_named(stack: Stack) -> None:
    who = asyncio.run(shop_and_review(stack))
    code, counts = probe(stack, who.subject_id, 60)
    assert code == 0
    assert set(counts) == {"account", "logistics-gateway", "order", "reviews"}
    assert counts["reviews"] == 1
    assert (counts["account"] or 0) >= 2
    assert (counts["order"] or 0) >= 3

    stack.process("reviews").pause()
    try:
        code, counts = probe(stack, who.subject_id, 5)
    finally:
        stack.process("reviews").resume()
    assert code == 5
    assert counts["reviews"] is None
    assert None not in {count for system, count in counts.items() if system != "reviews"}

    assert probe(stack, who.subject_id, 60)[0] == 0


def test_the_inventory_has_the_third_party_too(stack: Stack) -> None:
    who = asyncio.run(shop_and_review(stack))
    items: list[dict[str, Any]] = []
    while not any(item["system"] == "reviews" for item in items):  # the test's own time-out ends a wait in vain
        _, items = privacyctl(stack, "inventory", str(who.subject_id))
    assert {item["data_class"] for item in items if item["system"] == "reviews"} == {"identity"}
    assert {item["system"] for item in items} >= {"account", "order", "reviews"}
