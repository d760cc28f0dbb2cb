"""What the evidence log is told by the environment of the process that it runs in."""

from pathlib import Path

from servicekit import Kit, Settings
from servicekit.core.errors import Misconfigured


class EvidenceSettings(Settings):
    evidence_key_file: Path | None = None
    evidence_origin: str = "shop.example/evidence"
    evidence_file: Path | None = None
    witness_url: str = ""
    witness_public_key_file: Path | None = None


def settings_of(kit: Kit) -> EvidenceSettings:
    """The settings of a kit whose service keeps the log. Raises `Misconfigured` for another service's."""
    if not isinstance(kit.settings, EvidenceSettings):
        raise Misconfigured("The evidence log needs settings of its own: run it with EvidenceSettings.")
    return kit.settings
