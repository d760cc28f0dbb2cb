"""The floor of an erasure: the statements that erase and prove it, without requests, sagas, commands, waiting or draining."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from account_service.holdings import HOLDINGS as ACCOUNT
from event_contracts.vault_api import RevocationAction
from evidence_log import store as evidence
from evidence_log.store import Issued
from logistics_gateway.holdings import HOLDINGS as GATEWAY
from order_service.holdings import HOLDINGS as ORDER
from privacy_service.inventory.holdings import INVENTORY, RECIPIENTS
from servicekit.core.revocation_list import FIRST_HASH, make_entry
from servicekit.db.postgres import Tx
from servicekit.participant.holdings import Erasure, Holding
from servicekit.participant.revocations import _note_keys, _note_subjects, sweep
from vault_service.revocations import store as vault
from vault_service.revocations.domain import Case, Wanted

HOLDERS: dict[str, Sequence[Holding]] = {"account": ACCOUNT, "order": ORDER, "logistics-gateway": GATEWAY,
                                         "privacy": (INVENTORY, RECIPIENTS)}  # fmt: skip
Keys = dict[UUID, list[UUID]]  # by person


class Floor:
    """`pools`: of each system, as its owner."""

    def __init__(self, pools: Mapping[str, Any]) -> None:
        self._number, self._pools = 0, pools

    async def erase(self, cases: Sequence[tuple[UUID, UUID]]) -> None:
        """(request, person) each; those that come together share their transactions."""
        wanted = [Wanted(Case(*case), None, None, frozenset()) for case in cases]
        keys: Keys = {subject: [] for _, subject in cases}
        await self._tx("vault", lambda tx: vault.write_fences(tx, wanted))
        await self._tx("vault", lambda tx: self._change(tx, wanted, keys, "fence"))
        erasures = [Erasure(request, subject, tuple(keys[subject]), is_final=True) for request, subject in cases]
        sweeps = {name: partial(self._sweep, held, erasures) for name, held in HOLDERS.items()}
        await asyncio.gather(*(self._tx(name, work) for name, work in sweeps.items()))
        await self._tx("vault", lambda tx: self._change(tx, wanted, keys, "destroy"))
        await self._tx("privacy", lambda tx: self._prove(tx, cases, keys))

    async def _change(self, tx: Tx, wanted: Sequence[Wanted], keys: Keys, action: RevocationAction) -> None:
        found = [key for _, key in await vault.read_scoped(tx, wanted)]
        for key in found:
            key.state, key.fingerprint = "fenced" if action == "fence" else "destroyed", bytes(32)
            keys[key.stored.name.subject].append(key.key_id)
        await vault.change_keys(tx, found)
        numbers = range(self._number + 1, self._number + 1 + len(wanted))
        self._number += len(wanted)
        await vault.insert_entries(tx, [
            make_entry(number, action, *w.case, is_final=True, key_ids=sorted({*keys[w.case.subject]}), previous_hash=FIRST_HASH)
            for number, w in zip(numbers, wanted, strict=True)
        ])  # fmt: skip

    async def _sweep(self, holdings: Sequence[Holding], erasures: Sequence[Erasure], tx: Tx) -> None:
        await _note_keys(tx, [(key_id, each.subject, 1) for each in erasures for key_id in each.key_ids])
        await _note_subjects(tx, {each.subject: 1 for each in erasures})
        await sweep(tx, holdings, erasures)

    async def _prove(self, tx: Tx, cases: Sequence[tuple[UUID, UUID]], keys: Keys) -> None:
        proofs = [(uuid4(), "key_destruction", bytes(300)) for _, subject in cases for _ in {*keys[subject]}]
        await evidence.insert_leaves(tx, proofs)
        issued = [Issued(uuid4(), request, 0, datetime.now(UTC), uuid4(), bytes(3000)) for request, _ in cases]
        await evidence.insert_leaves(tx, [(each.leaf_id, "certificate", bytes(500)) for each in issued])
        await evidence.insert_certificates(tx, issued)

    async def _tx(self, system: str, work: Callable[[Tx], Awaitable[None]]) -> None:
        async with self._pools[system].acquire() as connection, connection.transaction():
            await work(Tx(connection, None))
