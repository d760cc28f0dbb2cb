"""The policy document: what it allows, and what is refused at load with file and entry named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fideslang.default_taxonomy import DEFAULT_TAXONOMY

import event_contracts.account
import event_contracts.order
from event_contracts import PersonalData
from event_contracts.personal import categories
from event_contracts.topics import CARRIERS, TOPICS
from servicekit.core.policy import Policy, PolicyError, Retention

BASE = Path(__file__).resolve().parents[2] / "shared" / "policy" / "policy.yaml"
REVIEWS = """
systems:
  reviews: {title: Product reviews, holds: [identity]}
topics:
  review.events: {owner: reviews, keep: P1Y}
grants:
  reviews: {seal: [identity], open: {identity: [own_access]}}
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load([BASE])


def test_the_gateway_may_open_delivery_for_delivery_and_nothing_else(policy: Policy) -> None:
    opened = {
        (data_class, purpose)
        for data_class in policy.classes
        for purpose in policy.purposes
        if policy.may_open("logistics-gateway", data_class, purpose)
    }
    assert opened == {("delivery", "delivery"), ("registration", "delivery")}


def test_there_is_no_marketing_purpose_and_none_can_be_added(policy: Policy, tmp_path: Path) -> None:
    """U5, D1."""
    never = ("marketing", "sales", "third_party_sharing", "train_ai_system")
    assert not [name for name, rule in policy.purposes.items() if rule.use.startswith(never)]
    document = _base()
    document["purposes"]["newsletter"] = {"use": "marketing.communications.email", "clauses": ["U5"], "title": "News"}
    with pytest.raises(PolicyError, match=r"policy.yaml: purposes.newsletter.use: .*U5"):
        Policy.load([_written(tmp_path, document)])


def test_what_is_not_written_is_refused(policy: Policy) -> None:
    assert not policy.may_open("nobody", "delivery", "delivery")
    assert not policy.may_open("order", "nothing", "delivery")
    assert not policy.may_open("order", "delivery", "delivery")
    assert not policy.may_seal("nobody", "delivery")
    assert not policy.may_seal("privacy", "payment")
    assert policy.index_kinds("nobody") == frozenset()
    assert not policy.may_find("account", "email")
    assert policy.quota("nobody", "delivery") == 0


def test_a_class_has_an_owner_and_systems_hold_what_is_written(policy: Policy) -> None:
    owners = {name: policy.owner(name) for name in policy.classes}
    assert owners == {
        **dict.fromkeys(("identity", "contact", "credentials", "behaviour"), "account"),
        **dict.fromkeys(("delivery", "registration", "tracking", "order_record", "payment"), "order"),
        **dict.fromkeys(("quarantine", "export", "pseudonym")),
    }
    assert policy.owner("unknown") is None
    assert policy.holds("logistics-gateway", "delivery")
    assert not policy.holds("logistics-gateway", "identity")
    assert not policy.holds("unknown", "identity")


def test_an_owner_that_does_not_hold_the_class_is_refused(tmp_path: Path) -> None:
    base = BASE.read_text().replace("owner: account", "owner: logistics-gateway", 1)
    (tmp_path / "policy.yaml").write_text(base)
    with pytest.raises(PolicyError, match="'logistics-gateway' is no holder of that class"):
        Policy.load([tmp_path / "policy.yaml"])


def test_index_kinds_are_those_written_and_those_looked_up(policy: Policy) -> None:
    assert policy.index_kinds("account") == {"email", "phone"}
    assert policy.index_kinds("privacy") == {"email", "phone", "order_number", "shop_order_number"}
    assert policy.may_find("privacy", "email")
    assert not policy.may_index("privacy", "email")


def test_every_model_of_the_contracts_has_its_class_and_all_its_categories_in_the_policy(policy: Policy) -> None:
    """L10."""
    models = [
        model
        for module in (event_contracts.account, event_contracts.order)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, PersonalData) and model.data_class is not None
    ]
    assert len(models) == 13
    for model in models:
        rule = policy.classes[str(model.data_class)]
        assert categories(model) <= set(rule.categories), model.__name__


def test_every_key_of_fideslang_exists(policy: Policy) -> None:
    uses = {use.fides_key for use in DEFAULT_TAXONOMY.data_use}
    known = {category.fides_key for category in DEFAULT_TAXONOMY.data_category}
    assert {rule.use for rule in policy.purposes.values()} <= uses
    assert {key for rule in policy.classes.values() for key in rule.categories} <= known


def test_the_topics_are_those_of_the_contracts_and_kept_as_long(policy: Policy) -> None:
    named = {topic.name: topic for topic in TOPICS if not topic.name.startswith("carrier.")}
    assert set(policy.topics) == set(named)
    for name, rule in policy.topics.items():
        days = None if rule.keep is None else Retention(after="event_published", keep=rule.keep, basis="-").days
        hours = named[name].retention_hours
        assert (rule.owner, days) == (named[name].owner, None if hours is None else hours // 24), name


def test_the_recipients_are_the_carriers_and_the_mail_provider(policy: Policy) -> None:
    assert set(policy.recipients) == {*CARRIERS, "mail-provider"}
    assert policy.classes["contact"].recipients == ["mail-provider"]


def test_a_period_is_counted_in_days() -> None:
    assert Retention(after="order_closed", keep="P1Y2M1W3D", basis="-").days == 365 + 60 + 7 + 3


def test_a_third_party_joins_with_a_fragment_of_six_lines(tmp_path: Path) -> None:
    fragment = tmp_path / "reviews.yaml"
    fragment.write_text(REVIEWS)
    joined = Policy.load([BASE, fragment])
    assert joined.may_seal("reviews", "identity")
    assert joined.may_open("reviews", "identity", "own_access")
    assert not joined.may_open("reviews", "delivery", "delivery")
    assert len(REVIEWS.strip().splitlines()) <= 6


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("grants: {order: {seal: [identity]}}", "fragment.yaml: grants.order: stands in policy.yaml already"),
        ("systems: {order: {title: x, holds: []}}", "fragment.yaml: systems.order: stands in policy.yaml already"),
        ('version: "2026-01-01"', "fragment.yaml: version: stands in policy.yaml already"),
        ("systems: {reviews: {title: Reviews, holds: [secrets]}}", "systems.reviews.holds: 'secrets' is no class"),
        ("grants: {reviews: {seal: [identity]}}", "grants: 'reviews' is no system"),
        ("topics: {review.events: {owner: reviews, keep: P1Y}}", "topics.review.events.owner: 'reviews' is no system"),
        ("grants: {reviews: {sael: [identity]}}", "fragment.yaml: grants.reviews.sael: Extra inputs"),
        ("systems: {reviews: {holds: []}}", "fragment.yaml: systems.reviews.title: is missing"),
        ("systems: [reviews]", "fragment.yaml: systems: must be a mapping"),
        ("- systems", "fragment.yaml: must be a mapping of sections"),
        ("systems: {a-b: {}, a-b: {}}", "fragment.yaml: line 1: 'a-b' stands twice"),
        ("systems: {reviews: [", "fragment.yaml: line 1: "),
        ("surprise: {}", "fragment.yaml: surprise: Extra inputs"),
    ],
)
def test_a_fragment_that_contradicts_or_guesses_is_refused_by_name(tmp_path: Path, fragment: str, message: str) -> None:
    path = tmp_path / "fragment.yaml"
    path.write_text(fragment)
    with pytest.raises(PolicyError) as error:
        Policy.load([BASE, path])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        ("purposes", None, "classes.payment.purposes: is missing"),
        ("purposes", [], "classes.payment.purposes: List should have at least 1 item"),
        ("purposes", ["guessing"], "classes.payment.purposes: 'guessing' is no purpose"),
        ("retention", None, "classes.payment.retention: is missing"),
        ("retention", {"after": "order_closed", "keep": "soon", "basis": "x"}, "classes.payment.retention.keep: "),
        ("retention", {"after": "order_closed", "keep": "P", "basis": "x"}, "classes.payment.retention.keep: "),
        ("recipients", None, "classes.payment.recipients: is missing"),
        ("recipients", ["everybody"], "classes.payment.recipients: 'everybody' is no recipient"),
        ("categories", [], "classes.payment.categories: List should have at least 1 item"),
    ],
)
def test_a_class_without_purpose_retention_or_recipients_is_refused(
    tmp_path: Path, rule: str, change: object, message: str
) -> None:
    """L10."""
    document = _base()
    document["classes"]["payment"].pop(rule)
    if change is not None:
        document["classes"]["payment"][rule] = change
    with pytest.raises(PolicyError) as error:
        Policy.load([_written(tmp_path, document)])
    assert f"policy.yaml: {message}" in str(error.value) or message in str(error.value)


def test_a_grant_for_a_purpose_that_the_class_lacks_is_refused(tmp_path: Path) -> None:
    document = _base()
    document["grants"]["order"]["open"]["payment"] = ["personalisation"]
    with pytest.raises(PolicyError, match=r"grants.order.open.payment: 'personalisation' is not a purpose"):
        Policy.load([_written(tmp_path, document)])


def test_no_file_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="POLICY_FILES"):
        Policy.load([])
    with pytest.raises(PolicyError, match=r"absent\.yaml"):
        Policy.load([BASE, tmp_path / "absent.yaml"])


def test_the_order_of_the_base_and_the_fragment_does_not_matter(tmp_path: Path) -> None:
    fragment = tmp_path / "reviews.yaml"
    fragment.write_text(REVIEWS)
    copy = tmp_path / "policy.yaml"
    shutil.copy(BASE, copy)
    assert Policy.load([fragment, copy]) == Policy.load([copy, fragment])


def _base() -> Any:
    return yaml.safe_load(BASE.read_text())


def _written(folder: Path, document: object) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
