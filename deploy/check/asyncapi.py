"""AsyncAPI documents out of the running code: what each service subscribes to and publishes, what is sealed in it, and whose.

`python -m deploy.check.asyncapi` compares docs/asyncapi/ with the code; with `--write` it writes the documents.
"""

import importlib
import json
import sys
from collections.abc import Iterator

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from pydantic import create_model

from deploy.check.findings import ROOT, Finding, files
from event_contracts.carrier import CarrierMessage, shipments_topic
from event_contracts.shipment import Shipment
from event_contracts.topics import CARRIERS, TOPICS
from servicekit.app.service import Service
from servicekit.kafka.subscription import describe

FOLDER = ROOT / "docs" / "asyncapi"
SEALED = (
    "A JWE to the carrier's key; this is what is inside. Which fields leave, the lane's file says (docs/carrier.md)."
)
# The contract, with what a lane's fields mean in the place of any object.
_MESSAGE = create_model("CarrierMessage", __base__=CarrierMessage, shipment=(Shipment | None, None))
WHY = "Storefront engineers read it instead of the code."
DO = "Run: make asyncapi"


def main() -> int:
    """Compare, or write; returns the exit code."""
    if "--write" in sys.argv[1:]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for service in services():
            (FOLDER / f"{service.name}.json").write_text(document(service))
    findings = list(find())
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def find() -> Iterator[Finding]:
    """Documents that are not those of the code."""
    expected = {f"{service.name}.json": service for service in services()}
    for name, service in expected.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != document(service):
            yield Finding(path, 1, f"The AsyncAPI document of {service.name} is not current.", WHY, DO)
    for path in sorted(FOLDER.glob("*.json")):
        if path.name not in expected:
            yield Finding(path, 1, "It belongs to no service.", WHY, "Delete it.")


def services() -> list[Service]:
    """Every `SERVICE` of an app.py that takes part in Kafka."""
    found = []
    for path in files("app.py", below=("services",)):
        names = path.with_suffix("").parts
        module = importlib.import_module(".".join(names[names.index("src") + 1 :]))
        service = getattr(module, "SERVICE", None)  # the vault's app has none: it is HTTP only
        if isinstance(service, Service) and (service.publishes or service.readers):
            found.append(service)
    return found


def document(service: Service) -> str:
    """The AsyncAPI 3 document as JSON text. Every sealed field has `x-privacy` and `x-about`, from the contract itself."""
    broker = KafkaBroker("kafka")
    describe(broker, service.name, service.readers, service.publishes)
    for carrier in CARRIERS:
        if any(topic.name == shipments_topic(carrier) and topic.owner == service.name for topic in TOPICS):
            title = f"{service.name}.{shipments_topic(carrier)}"
            broker.publisher(shipments_topic(carrier), schema=_MESSAGE, title=title, description=SEALED)
    title = f"{service.name}: what it consumes and publishes"
    # Keys are sorted because FastStream lists channels in the order of a set.
    specification = AsyncAPI(broker, title=title, version="1", schema_version="3.0.0").to_specification()
    return json.dumps(specification.to_jsonable(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.exit(main())
