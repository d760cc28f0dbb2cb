"""The jars of Apache Kafka: fetched once into the user's cache, used only when the lock file names each.

`python -m deploy.local.jars` fetches what KAFKA names and writes a new lock file: for a change of version, to be
reviewed and committed.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from deploy.local.cache import cache_folder, one_at_a_time
from deploy.local.processes import StackError

KAFKA_VERSION = "4.4.0"
# slf4j-simple is the logger on purpose: log4j-slf4j-impl brings a BOM that swaps kafka-clients for 3.9.1.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
LOCK_FILE = Path(__file__).with_name("kafka.lock")
STAMP = "verified.json"


def kafka_jars(lock_file: Path = LOCK_FILE, folder: Path | None = None) -> list[Path]:
    """Paths of all jars for the class path, every one verified against `lock_file` (sha256), fetched if need be.

    The first use hashes each jar; later ones compare size and time of change with what was hashed, and hash a jar
    again when these differ. `folder` is where the jars lie (by default in the user's cache). Raises StackError on any
    difference.
    """
    lock = read_lock(lock_file)
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12]
    folder = folder or cache_folder() / "kafka" / f"{KAFKA_VERSION}-{digest}"
    with one_at_a_time(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            _fetch_verified(lock, lock_file, folder)
        _verify(lock, lock_file, folder)
    return [folder / name for name in sorted(lock)]


def read_lock(lock_file: Path) -> dict[str, str]:
    """File name of each jar → sha256 in hex. A line is `group:artifact:version sha256`; # begins a comment."""
    lock = {}
    for line in lock_file.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, digest = line.split()
            _, artifact, version = coordinate.split(":")
            lock[f"{artifact}-{version}.jar"] = digest
    return lock


def _fetch_verified(lock: dict[str, str], lock_file: Path, folder: Path) -> None:
    print(f"Fetching Apache Kafka {KAFKA_VERSION} (43 MB, once) …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        jars = Path(scratch) / "verified"
        jars.mkdir()
        for jar, _ in _fetch(Path(scratch)):
            if jar.name in lock:
                shutil.copyfile(jar, jars / jar.name)
        _verify(lock, lock_file, jars)
        jars.rename(folder)


def _fetch(scratch: Path) -> list[tuple[Path, str]]:
    """Every jar that ENDPOINT needs, with its coordinate `group:artifact:version`."""
    from jgo.env import EnvironmentBuilder  # takes a while to import, and is needed only once per machine
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=scratch / "repository", timeout=60)
    try:
        environment = EnvironmentBuilder(context, cache_dir=scratch / "environments").from_endpoint(ENDPOINT)
    except Exception as error:
        raise StackError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from the Maven repository ({type(error).__name__}). "
            "Check the network and run the same command again."
        ) from error
    fetched = []
    for jar in sorted((*environment.jars_dir.glob("*.jar"), *environment.modules_dir.glob("*.jar"))):
        source = next((scratch / "repository").rglob(jar.name))
        version, artifact, *group = reversed(source.relative_to(scratch / "repository").parent.parts)
        fetched.append((jar, f"{'.'.join(reversed(group))}:{artifact}:{version}"))
    return fetched


def _verify(lock: dict[str, str], lock_file: Path, folder: Path) -> None:
    present = {path.name for path in folder.glob("*.jar")}
    if present != lock.keys():
        wrong = sorted(present ^ lock.keys())
        raise StackError(_complaint(lock_file, folder, f"these jars are missing or not listed: {', '.join(wrong)}"))
    stamp_file = folder / STAMP
    known: dict[str, list[int]] = json.loads(stamp_file.read_text()) if stamp_file.exists() else {}
    seen = {name: _stamp(folder / name) for name in lock}
    for name, digest in lock.items():
        if known.get(name) != seen[name] and _sha256(folder / name) != digest:
            raise StackError(_complaint(lock_file, folder, f"{name} is not the file that was locked"))
    if known != seen:
        stamp_file.write_text(json.dumps(seen))


def _complaint(lock_file: Path, folder: Path, what: str) -> str:
    return (
        f"Kafka's jars do not match {lock_file.name}: {what}. Nothing was started. "
        f"Delete {folder} to fetch them again. If that does not help, the repository serves other files "
        "than were reviewed."
    )


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock(lock_file: Path = LOCK_FILE) -> int:
    """Fetch, hash and lock what ENDPOINT resolves to today; returns the number of jars."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        lines = sorted(f"{coordinate} {_sha256(jar)}" for jar, coordinate in _fetch(Path(scratch)))
    heading = "# artifact sha256; written by `python -m deploy.local.jars`, verified before every start of Kafka"
    lock_file.write_text("\n".join([heading, *lines]) + "\n")
    return len(lines)


if __name__ == "__main__":
    print(f"{write_lock()} jars locked in {LOCK_FILE.name}. Review the difference before you commit it.")
