"""The lanes' YAML files.

One file holds one version of one lane. A version that was ever in force stays, because disclosures name it and are
sent again by it; the highest version of each lane is the one in force.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from event_contracts.order import Service
from lanes.lane import Lane, in_force
from servicekit.core.errors import Misconfigured
from servicekit.core.strict_yaml import BadYaml, load_yaml


class LaneError(Misconfigured):
    """The lanes cannot be used. The message names file and entry, and what to change."""

    code = "bad_lanes"


def load_lanes(folder: Path) -> tuple[Lane, ...]:
    """All versions of all lanes of the folder's YAML files. Raises `LaneError`."""
    lanes: dict[tuple[str, int], tuple[str, Lane]] = {}
    for file in sorted(folder.glob("*.yaml")):
        lane = _read(file)
        if (lane.id, lane.version) in lanes:
            other = lanes[lane.id, lane.version][0]
            raise LaneError(
                f"{file.name}: version {lane.version} of {lane.id} stands in {other} already; raise `version`"
            )
        lanes[lane.id, lane.version] = file.name, lane
    if not lanes:
        raise LaneError(f"no lane was found in {folder.name}: LANES_DIR must name the folder of the lanes' YAML files")
    _refuse_overlaps(list(lanes.values()))
    return tuple(lane for _, lane in lanes.values())


def _read(file: Path) -> Lane:
    try:
        return Lane.model_validate(load_yaml(file))
    except (BadYaml, OSError) as error:
        raise LaneError(f"{file.name}: it cannot be read as YAML: {error}") from None
    except ValidationError as error:
        details = [f"{_location(d['loc'])}{d['msg']}" for d in error.errors(include_url=False, include_input=False)]
        raise LaneError(f"{file.name}: {'; '.join(details)}") from None


def _location(loc: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    return f"{path}: " if path else ""


def _refuse_overlaps(found: list[tuple[str, Lane]]) -> None:
    valid = in_force(lane for _, lane in found)
    served: dict[tuple[str, bool, Service], str] = {}
    for file, lane in found:
        if lane not in valid:
            continue
        for key in lane.serves:
            if served.setdefault(key, file) != file:
                raise LaneError(
                    f"{file}: destinations: {key[0]} with service {key[2]} is served by {served[key]} too; "
                    "one lane must be left for each"
                )
