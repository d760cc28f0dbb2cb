"""What the vault is told by its environment, beside what every service is told."""

from pathlib import Path

from servicekit.settings import Settings


class VaultSettings(Settings):
    service_keys_dir: Path | None = None
    kek_dir: Path | None = None
