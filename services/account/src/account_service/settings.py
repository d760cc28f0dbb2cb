"""What the account service is told besides the kit's settings."""

from pathlib import Path

from pydantic import Field

from servicekit import Settings


class AccountSettings(Settings):
    # Signs customers' access tokens; only the role `api` needs it.
    customer_key_file: Path | None = None
    customer_token_minutes: int = Field(60, ge=1, le=24 * 60)
    # A guest has no password to come back with, so the token lasts as long as an order is usually under way.
    guest_token_minutes: int = Field(14 * 24 * 60, ge=1, le=60 * 24 * 60)

    # RFC 9106 §4, the second recommended option; memory in KiB.
    argon2_time_cost: int = Field(3, ge=1)
    argon2_memory_kib: int = Field(65_536, ge=8)
    argon2_lanes: int = Field(4, ge=1)
    argon2_threads: int = Field(2, ge=1)
    argon2_waiting: int = Field(64, ge=1)

    # Per e-mail address and peer. A refused sign-in takes a multiple of the seconds, whatever it was refused for.
    sign_in_per_minute: int = Field(10, ge=1)
    sign_in_refusal_seconds: float = Field(0.5, ge=0)

    # Codes of confirmations are derived under it, and mails to an address counted: 32 bytes in hex.
    mail_key_file: Path | None = None
    # The mail provider, whom the policy names; only the role `jobs` needs it. STARTTLS may be off for loopback only.
    smtp_host: str = ""
    smtp_port: int = Field(587, ge=1, le=65_535)
    smtp_user: str = ""
    smtp_password_file: Path | None = None
    smtp_ca_file: Path | None = None
    smtp_starttls: bool = True
    smtp_seconds: float = Field(10, gt=0, le=30)
    mail_from: str = ""
    # A mail that was tried in vain waits so long, then twice as long each time, up to an hour.
    mail_retry_seconds: float = Field(60, gt=0)
    # So long nobody else sends what a process has claimed; it takes half of that itself.
    mail_lease_seconds: float = Field(60, ge=2)
    # Where the links in mails lead.
    shop_url: str = "http://localhost"
