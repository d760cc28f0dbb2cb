"""Lanes as data: what is in force, and every mistake refused with file and entry named."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from event_contracts.shipment import Shipment
from lanes.choice import make_routes
from lanes.lane import Border, Lane, in_force
from lanes.loading import LaneError, load_lanes
from lanes.projection import compile_lane
from lanes.refusal import CannotShip
from logistics_gateway.domain import decide
from tests.support.deliveries import make_delivery

LANES = Path(__file__).parents[2] / "shared" / "policy" / "lanes"
# The countries of Faker's widely used locales, and more.
SERVED = [
    "DE", "FR", "IT", "ES", "PL", "NL", "SE", "NO", "FI", "DK", "CZ", "GR", "PT", "GB", "US", "JP", "CN", "KR", "TW", "IN",
    "BR", "MX", "TR", "UA", "IL", "AE", "SA", "TH", "AU", "CA", "CH", "AT", "IE", "ZA",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one valid lane."""
    (tmp_path / "north-1.yaml").write_text(yaml.safe_dump(a_lane()))
    return tmp_path


def a_lane(**changes: object) -> dict[str, object]:
    lane: dict[str, object] = {
        "id": "north",
        "version": 1,
        "carrier": "meridian",
        "services": ["standard"],
        "destinations": ["NO"],
        "not_after_hours": 24,
        "handling": {"disposal": "deletion", "retention_days": 30, "recall": "message"},
        "constants": {"service": "m1"},
        "fields": [{"to": "recipient.person_name", "from": "consignee.name", "required": True}],
    }
    return {**lane, **changes}


def write(folder: Path, name: str, **changes: object) -> None:
    (folder / name).write_text(yaml.safe_dump(a_lane(**changes)))


@pytest.mark.parametrize("service", ["standard", "express"])
@pytest.mark.parametrize("country", SERVED)
def test_every_served_country_has_a_lane(country: str, service: str) -> None:
    decision = decide(make_routes(load_lanes(LANES)), make_delivery(country=country, service=service))
    assert decision.reason is None
    assert decision.shipment is not None
    assert decision.shipment["recipient"]["country_code"] == country


def test_only_one_lane_sends_an_email_address() -> None:
    lanes = in_force(load_lanes(LANES))
    assert [lane.id for lane in lanes if "recipient.email" in lane.paths] == ["meridian-southern-cone"]


def test_inside_the_customs_union_no_goods_are_disclosed() -> None:
    lanes = [lane for lane in load_lanes(LANES) if lane.border is not Border.CROSSED and "DE" in lane.destinations]
    assert lanes
    assert not any(path.startswith("customs") for lane in lanes for path in lane.paths)


def test_the_highest_version_is_in_force_and_the_old_one_stays_loadable(folder: Path) -> None:
    fields = [{"to": "recipient.city", "from": "consignee.city"}]
    write(folder, "north-2.yaml", version=2, fields=fields)
    routes = make_routes(load_lanes(folder))
    delivery = make_delivery(country="NO")
    assert decide(routes, delivery).shipment == {"service": "m1", "recipient": {"city": delivery.consignee.city}}
    old = decide(routes, delivery, routes.version("north", 1))
    assert old.shipment == {"service": "m1", "recipient": {"person_name": delivery.consignee.name}}
    with pytest.raises(CannotShip, match="lane_version_gone"):
        routes.version("north", 3)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"to": "a", "from": "consignee.nickname"}, "from consignee.nickname is not a field of Delivery"),
        ({"to": "a", "from": "buyer.name"}, "is not a field of Delivery"),
        ({"to": "a", "from": "consignee"}, "names a whole part"),
        ({"to": "a", "from": "consignee.lines"}, "needs lines"),
        ({"to": "a", "from": "consignee.name[0]"}, "must not index name"),
        ({"to": "a", "from": "consignee.name.first"}, "is not a field of Delivery"),
        ({"to": "a", "from": "parcels[].weight_g"}, "must go through one list each"),
        ({"to": "a[].b", "from": "consignee.name"}, "must go through one list each"),
        ({"to": "a[]", "from": "parcels[].weight_g"}, "`to` names a list"),
        ({"to": "a", "from": "consignee.name", "transform": "eval"}, "eval is no transform; there are truncate_35"),
        ({"to": "a[].b", "from": "parcels[].weight_g", "transform": "upper"}, "upper cannot be applied"),
        ({"to": "service", "from": "consignee.name"}, "service is filled twice"),
        ({"to": "service.code", "from": "consignee.name"}, "service is both a value and a part"),
        ({"to": "__class__", "from": "consignee.name"}, "fields[1].to"),
        ({"to": "a", "from": "consignee.__dict__"}, "fields[1].from"),
        ({"to": "a", "from": "consignee.name", "when": "always"}, "fields[1].when: Extra inputs"),
    ],
)
def test_a_wrong_field_is_refused_with_file_and_entry(folder: Path, field: dict[str, object], said: str) -> None:
    write(folder, "north-1.yaml", fields=[{"to": "recipient.person_name", "from": "consignee.name"}, field])
    with pytest.raises(LaneError) as refused:
        load_lanes(folder)
    assert "north-1.yaml" in str(refused.value)
    assert said in str(refused.value)


def test_two_lists_cannot_be_mixed(folder: Path) -> None:
    fields = [{"to": "p[].a", "from": "parcels[].weight_g"}, {"to": "p[].b", "from": "customs[].hs_code"}]
    write(folder, "north-1.yaml", fields=fields)
    with pytest.raises(LaneError, match=r"fields\[1\]: p is filled from parcels already"):
        load_lanes(folder)


def test_a_constant_of_a_list_that_no_field_fills_is_refused(folder: Path) -> None:
    write(folder, "north-1.yaml", constants={"parcels[].unit": "G"})
    with pytest.raises(LaneError, match="no field fills this list"):
        load_lanes(folder)


def test_overlapping_lanes_are_refused_naming_both_files(folder: Path) -> None:
    write(folder, "other-1.yaml", id="other", carrier="pacifica")
    with pytest.raises(LaneError, match=r"other-1.yaml: destinations: NO .* is served by north-1.yaml too"):
        load_lanes(folder)


def test_a_version_stands_in_one_file_only(folder: Path) -> None:
    write(folder, "north-again.yaml")
    with pytest.raises(LaneError, match=r"version 1 of north stands in"):
        load_lanes(folder)


def test_a_doubled_key_is_refused(folder: Path) -> None:
    text = (folder / "north-1.yaml").read_text()
    (folder / "north-1.yaml").write_text(text + "carrier: pacifica\n")
    with pytest.raises(LaneError, match=r"north-1.yaml: .*line \d+: 'carrier' stands twice"):
        load_lanes(folder)


@pytest.mark.parametrize(
    "changes", [{"version": 0}, {"fields": []}, {"handling": {}}, {"destinations": [False]}, {"x": 1}]
)
def test_what_is_missing_or_unknown_is_refused(folder: Path, changes: dict[str, object]) -> None:
    write(folder, "north-1.yaml", **changes)
    with pytest.raises(LaneError, match=f"north-1.yaml: {next(iter(changes))}"):
        load_lanes(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaneError, match="LANES_DIR"):
        load_lanes(tmp_path)


def test_the_ledger_names_the_fields_of_the_delivery() -> None:
    route = compile_lane(next(lane for lane in load_lanes(LANES) if lane.id == "meridian-world-standard"))
    assert "consignee.name" in route.always
    assert "consignee.lines" in route.always
    assert "customs.hs_code" in route.always
    assert {code for code, _ in route.optional} == {"consignee.company", "consignee.state"}


def test_every_lane_file_is_named_after_its_lane_and_version() -> None:
    for file in LANES.glob("*.yaml"):
        lane = Lane.model_validate(yaml.safe_load(file.read_text()))
        assert file.name == f"{lane.id}-{lane.version}.yaml"


def test_every_field_that_leaves_stands_in_the_contract_with_its_unit() -> None:
    """`event_contracts.shipment` is what AsyncAPI and docs/carrier.md say to carriers."""
    known = set(_paths(Shipment))
    for lane in in_force(load_lanes(LANES)):
        assert lane.paths <= known, lane.id


def _paths(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        kinds = [kind for kind in get_args(info.annotation) if kind is not type(None)]
        is_list = get_origin(kinds[0]) is list
        inner = get_args(kinds[0])[0] if is_list else kinds[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, f"{here}[]" if is_list else here)
        else:
            yield here
