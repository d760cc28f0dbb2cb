"""What the privacy service is told by its environment, beside what every service is told."""

from pydantic import Field

from evidence_log.settings import EvidenceSettings
from servicekit import Kit
from servicekit.core.errors import Misconfigured


class PrivacySettings(EvidenceSettings):
    # How long an approved erasure may still be cancelled; when a silent system is first asked again; and how often a hold
    # is looked at whose end nobody knows.
    erasure_wait_seconds: float = Field(86_400, ge=0)
    command_retry_seconds: float = Field(30, gt=0)
    hold_check_seconds: float = Field(3_600, gt=0)
    # How often a retention run begins by itself; and how old a key is that no event has named and nobody holds.
    retention_every_seconds: float = Field(86_400, gt=0)
    unnamed_key_seconds: float = Field(86_400, ge=0)


def settings_of(kit: Kit) -> PrivacySettings:
    """The settings of a kit of this service. Raises `Misconfigured` for another service's."""
    if not isinstance(kit.settings, PrivacySettings):
        raise Misconfigured("This part needs the privacy service's settings: run it with PrivacySettings.")
    return kit.settings
