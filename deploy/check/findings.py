"""What a check reports: where, what is wrong, why that matters, and what to do."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where the code of the product lies; tools and tests have rules of their own.
PRODUCT = ("shared", "services")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One breach of a rule, at a line of a file."""

    file: Path
    line: int
    what: str
    why: str
    do: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.what} {self.why} {self.do}"


def files(*patterns: str, below: tuple[str, ...] = PRODUCT) -> list[Path]:
    """All files of these folders that match, but for hidden ones and caches."""
    found = (path for folder in below for pattern in patterns for path in (ROOT / folder).rglob(pattern))
    return sorted(
        path
        for path in found
        if not any(part.startswith((".", "__pycache__")) for part in path.parts[len(ROOT.parts) :])
    )
