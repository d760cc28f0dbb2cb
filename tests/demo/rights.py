"""What people may ask of the shop, shown on one customer: an export, an erasure, its proof, and an attacker who opens nothing."""

from __future__ import annotations

import asyncio
import json
import time
import zipfile
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.local.shop import Registered
from deploy.local.showing import console, privacyctl, step
from deploy.local.stack import Stack
from tests.support.attacker import Loot, raid

PATIENCE = "120"


async def show_rights(stack: Stack, who: Registered, canaries: set[str], values: set[str]) -> dict[str, Any]:
    """The figures for the report. `values` are those of the person, `canaries` those of everybody."""
    console.rule("[bold]A copy of everything")
    await show_export(stack, who)
    console.rule("[bold]An erasure")
    folder = stack.folder / "downloads"
    certificate = folder / "certificate.json"
    seconds, request = await erase(stack, who)
    _say("certificate", request, "--out", certificate.name)
    await privacyctl(stack, "certificate", request, "--out", str(certificate), role="privacy_officer")
    show_certificate(certificate)
    _say("verify", certificate.name)
    verified = (await privacyctl(stack, "verify", str(certificate))).strip() == "verified"
    console.print(
        "    verified offline, with the log's and its witness' public keys" if verified else "    not verified"
    )
    console.rule("[bold]An attacker with all bytes, all carriers' keys and the vault")
    with step("every topic from offset 0, every row and a fresh vault dump are tried with every key"):
        loot = await raid(stack)
    others = canaries - values
    show_loot(loot, who, values, others)
    return {
        "erasure_seconds": seconds,
        "certificate_verified": verified,
        "replay_opened": len(loot.values & values),
        "replay_others_opened": len(loot.values & others),
        "replay_others": len(others),
    }


async def show_export(stack: Stack, who: Registered) -> None:
    folder = stack.folder / "downloads"
    folder.mkdir()
    _say("open", "access", str(who.subject_id), "--check", "document")
    request = (await privacyctl(stack, "open", "access", str(who.subject_id), "--check", "document")).strip()
    _say("follow", request)
    await privacyctl(stack, "follow", request, "--patience", PATIENCE, live=True)
    _say("download", request, "package.zip")
    await privacyctl(stack, "download", request, str(folder / "package.zip"))
    await asyncio.to_thread(_show_package, folder / "package.zip")


def _show_package(file: Path) -> None:
    table = Table("file in the package", "bytes")
    with zipfile.ZipFile(file) as package:
        for entry in package.infolist():
            table.add_row(entry.filename, f"{entry.file_size:,}")
    console.print(table)
    file.unlink()


async def erase(stack: Stack, who: Registered) -> tuple[float, str]:
    """Opened by support, approved by the privacy officer. Seconds from the approval to the end, and the request's id."""
    subject = str(who.subject_id)
    _say("open", "erasure", subject, "--check", "callback")
    request = (await privacyctl(stack, "open", "erasure", subject, "--check", "callback")).strip()
    _say("preview", request)
    console.print(await _preview(stack, request))
    _say("approve", request)
    approved = time.monotonic()
    await privacyctl(stack, "approve", request, role="privacy_officer")
    _say("follow", request)
    await privacyctl(stack, "follow", request, "--patience", PATIENCE, live=True)
    return round(time.monotonic() - approved, 1), request


async def _preview(stack: Stack, request: str) -> str:
    """Once every participant has said what it holds."""
    deadline = time.monotonic() + float(PATIENCE)
    while True:
        try:
            return await privacyctl(stack, "preview", request)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise


def show_certificate(file: Path) -> None:
    """What it says, in short."""
    text = file.read_text()
    console.print(f"    {len(text):,} bytes of signed JSON; what it names:")
    body = json.loads(text)
    told = body.get("certificate", body)
    for name in ("participants", "keys", "holds", "recipients", "probes", "not_covered"):
        if isinstance(told.get(name), (list, dict)):
            console.print(f"      {len(told[name]):>3} {name.replace('_', ' ')}")
    console.print(f"      horizon {told.get('horizon')}: from then on not even raw copies of the vault open the keys")


def show_loot(loot: Loot, who: Registered, values: set[str], others: set[str]) -> None:
    console.print(
        f"    {loot.tokens:,} sealed values and {loot.envelopes:,} messages tried with {len(loot.keys):,} keys"
    )
    console.print(f"    of the erased person: {len(loot.values & values)} of {len(values)} values opened")
    held = ", ".join(sorted({data_class for data_class, _ in loot.of(who.subject_id)})) or "nothing"
    console.print(f"    kept by law of that person, without name or address: {held}")
    console.print(f"    of everybody else, to show that the attacker can open: {len(loot.values & others):,}")
    left = len(loot.in_carrier_topics & values)
    console.print(f"    in the carriers' own topics, until the day that the certificate names: {left}")


def _say(*words: str) -> None:
    console.print(f"[dim]$ privacyctl {' '.join(words)}[/dim]")
