"""Holds, retention runs and KEK epochs over HTTP."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from privacyctl.client import Client


@dataclass(frozen=True)
class Upkeep:
    """The routes of upkeep. All raise `Failed`."""

    client: Client

    def add_hold(
        self, key: UUID, subject_id: UUID, data_class: str, anchor: UUID | None, basis: str, until: datetime | None
    ) -> dict[str, Any]:
        """`anchor` None: the whole class. `until` None: until it is lifted. The same `key` twice makes one hold."""
        body = {
            "subject_id": str(subject_id),
            "data_class": data_class,
            "anchor": None if anchor is None else str(anchor),
            "basis": basis,
            "until": None if until is None else until.isoformat(),
        }
        return self.client.ask("POST", "/v1/holds", "hold_id", json=body, headers={"Idempotency-Key": str(key)})

    def lift_hold(self, hold_id: UUID) -> None:
        self.client.ask("DELETE", f"/v1/holds/{hold_id}", missing="There is no such hold. Check its id.")

    def run_retention(self, dry_run: bool) -> dict[str, Any]:
        return self.client.ask("POST", "/v1/retention/runs", "run_id", json={"dry_run": dry_run})

    def show_retention(self, run_id: UUID) -> dict[str, Any]:
        missing = "There is no such retention run. Check its id."
        return self.client.ask("GET", f"/v1/retention/runs/{run_id}", missing=missing)

    def kek(self) -> dict[str, Any]:
        """The epochs with the number of keys that each wraps, and the horizon."""
        return self.client.ask("GET", "/v1/kek", "epochs")

    def rotate_kek(self, after: int | None) -> dict[str, Any]:
        """Opens the next epoch; with `after` only if that is the active one."""
        asked = {} if after is None else {"after": str(after)}
        return self.client.ask("POST", "/v1/kek/rotations", "epochs", params=asked)
