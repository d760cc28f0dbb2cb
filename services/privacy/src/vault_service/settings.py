"""What the vault is told by its environment, beside what every service is told."""

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from servicekit import Settings

# AWS KMS deletes no key sooner than after 7 days.
_KMS_DELETION_DAYS: Final = 7


class VaultSettings(Settings):
    """Days: `kek_epoch_days` a KEK is used; `kek_deletion_days` after that it can be brought back (AWS KMS: 7 to 30);

    `kek_copies_days` after that a copy in escrow may still be there.
    """

    service_keys_dir: Path | None = None
    http_requests_per_service: int = Field(100, gt=0)
    revocations_file: Path | None = None
    revocations_key_file: Path | None = None
    kek_provider: Literal["file", "aws-kms"] = "file"
    kek_dir: Path | None = None
    kms_alias: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,64}$")
    kms_region: str | None = None
    kms_endpoint: str | None = None
    kek_epoch_days: int = Field(30, ge=1, le=3650)
    kek_deletion_days: int | None = Field(None, ge=0, le=365)
    kek_copies_days: int = Field(0, ge=0, le=3650)

    @property
    def kek_life(self) -> timedelta:
        return timedelta(days=self.kek_epoch_days)

    @property
    def kek_deletion(self) -> timedelta:
        usual = _KMS_DELETION_DAYS if self.kek_provider == "aws-kms" else 0
        return timedelta(days=usual if self.kek_deletion_days is None else self.kek_deletion_days)

    @property
    def kek_copies(self) -> timedelta:
        return timedelta(days=self.kek_copies_days)
