"""What the order service is told beyond every service's settings."""

from pathlib import Path

from servicekit import Settings


class OrderSettings(Settings):
    """`lanes_dir`: the folder of the lanes' YAML files."""

    lanes_dir: Path | None = None
