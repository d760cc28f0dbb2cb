"""JSON Schemas of all events and personal models, under version control, so that a breaking change cannot land unseen.

`python -m deploy.check.schemas` compares; with `--write` it writes them, unless a change breaks readers at the same version.
`--readers-first` lets a sealed model become wider: old records stay readable, and every service that reads the model must run
with the new one before the first service writes it. A record that comes too early waits in quarantine (docs/operator.md).
"""

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_contracts
from deploy.check.contracts import locate
from deploy.check.findings import Finding
from event_contracts import Event, PersonalData
from event_contracts.compatibility import breaks
from event_contracts.rules import models_of

FOLDER = Path(event_contracts.__file__).parent / "schemas"
_WRITE = "Run: make schemas"
WHY = "Records of this version lie in Kafka, and services of both ages run side by side."


def main() -> int:
    """Compare, or write; returns the exit code."""
    is_writing = "--write" in sys.argv[1:]
    findings = [
        finding for finding in find("--readers-first" in sys.argv[1:]) if not (is_writing and finding.do == _WRITE)
    ]
    for finding in findings:
        print(finding)
    if is_writing and not findings:
        FOLDER.mkdir(exist_ok=True)
        for name, model in contracts().items():
            (FOLDER / name).write_text(json.dumps(schema_of(model), indent=2, ensure_ascii=False) + "\n")
    return 1 if findings else 0


def find(readers_first: bool = False) -> Iterator[Finding]:
    """Every schema that is not the committed one, and why that breaks readers if it does."""
    current = contracts()
    for name, model in current.items():
        committed = FOLDER / name
        schema = schema_of(model)
        before = json.loads(committed.read_text()) if committed.exists() else None
        wider = readers_first and not issubclass(model, Event)
        broken = breaks(before, schema, readers_first=wider) if before is not None else []
        for what in broken:
            do = "Raise the version (class …(Event, version=2))" if issubclass(model, Event) else "Make a new model"
            yield Finding(*locate(model, None), f"{model.__name__}: {what}.", WHY, f"{do}, or take the change back.")
        if not broken and before != schema:
            yield Finding(*locate(model, None), f"{model.__name__}: the schema is not current.", WHY, _WRITE)
    for path in sorted(FOLDER.glob("*.json")):
        if path.stem.split(".")[0] not in {name.split(".")[0] for name in current}:
            do = "Keep the model until its topic's retention is over, then delete this file."
            yield Finding(path, 1, f"{path.stem} is in no contract any more.", WHY, do)


def contracts() -> dict[str, type[Event] | type[PersonalData]]:
    """File name → model, for all events and all personal models with a data class of their own."""
    found: dict[str, type[Event] | type[PersonalData]] = {}
    for info in pkgutil.iter_modules(event_contracts.__path__):
        for model in models_of(importlib.import_module(f"event_contracts.{info.name}")):
            if issubclass(model, Event) and model is not Event:
                found[f"{model.type_name()}.json"] = model
            elif issubclass(model, PersonalData) and model.data_class is not None:
                found[f"{model.__name__}.json"] = model
    return dict(sorted(found.items()))


def schema_of(model: type[Event] | type[PersonalData]) -> dict[str, Any]:
    """The model's JSON Schema with what the type alone knows: topic and key, or the data class."""
    own = (
        {"x-topic": model.topic, "x-key": model.key} if issubclass(model, Event) else {"x-data-class": model.data_class}
    )
    schema = model.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **own}


if __name__ == "__main__":
    sys.exit(main())
