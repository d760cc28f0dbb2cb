"""What the gateway is told beyond every service's settings."""

from pathlib import Path

from pydantic import Field

from servicekit import Settings


class GatewaySettings(Settings):
    """`lanes_dir`: the folder of the lanes' YAML files; `carriers_dir`: each carrier's public JWK as `<carrier>.json`;
    `reply_key_file`: the gateway's private JWK.
    """

    lanes_dir: Path | None = None
    carriers_dir: Path | None = None
    reply_key_file: Path | None = None
    # One key agreement with a carrier serves this long, or this many messages (docs/decisions.md#the-gateway-and-carriers).
    agreement_seconds: float = Field(60, gt=0, le=300)
    agreement_messages: int = Field(10_000, ge=1, le=100_000)
    # How long a line that cannot be sent waits for the next try, and how old an unsent one is before a job takes it up.
    blocked_retry_seconds: int = Field(300, ge=1)
    stale_seconds: int = Field(60, ge=1)
    # How long a line may be blocked before its order ends as undeliverable, and from when on staff see a carrier as silent.
    blocked_longest_seconds: int = Field(14 * 86_400, ge=1)
    silent_seconds: int = Field(7 * 86_400, ge=1)
