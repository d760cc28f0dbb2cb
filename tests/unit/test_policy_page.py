"""The public policy page says what the policy document says, to people."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from privacy_service.clauses import CLAUSES, PARTS
from privacy_service.policy_page import in_words, render_policy
from servicekit.core.errors import Misconfigured
from servicekit.core.policy import Policy, Retention

POLICY = Policy.load([Path(__file__).resolve().parents[2] / "shared" / "policy" / "policy.yaml"])
VOID = {"meta"}


class Outline(HTMLParser):
    """Tags in balance, ids, links, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_class_purpose_recipient_and_clause() -> None:
    page = Outline(render_policy(POLICY))
    assert page.open == []
    for rule in POLICY.classes.values():
        assert rule.title in page.text
        assert rule.retention.basis in page.text
    for title in (*POLICY.purposes.values(), *POLICY.recipients.values(), *POLICY.systems.values()):
        assert title.title in page.text
    for clause in POLICY.clauses:
        assert clause in page.ids
        assert CLAUSES[clause] in page.text
    assert POLICY.version in page.text
    assert POLICY.controller.contact in page.text


def test_every_link_leads_to_a_place_on_the_page_and_there_is_no_script() -> None:
    page = Outline(render_policy(POLICY))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"script", "iframe", "img", "link", "form"}


def test_what_the_document_says_is_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    content = POLICY.model_dump()
    content["controller"] = {"name": hostile, "contact": hostile}
    content["classes"]["identity"]["title"] = hostile
    content["classes"]["identity"]["retention"]["basis"] = hostile
    for section in ("purposes", "recipients", "systems"):
        first = next(iter(content[section]))
        content[section][first]["title"] = hostile
    html = render_policy(Policy.model_validate(content))
    assert "<script" not in html
    assert hostile in Outline(html).text


def test_a_clause_that_nobody_worded_is_not_left_out_in_silence() -> None:
    with pytest.raises(Misconfigured, match="V9"):
        render_policy(POLICY.model_copy(update={"clauses": [*POLICY.clauses, "V9"]}))


def test_every_clause_has_its_part() -> None:
    assert {clause[0] for clause in CLAUSES} == set(PARTS)


@pytest.mark.parametrize(
    ("keep", "after", "words"),
    [
        ("P30D", "account_closed", "30 days after the account is closed"),
        ("P1Y6M", "order_closed", "1 year and 6 months after the order is closed"),
        ("P2W", "parcel_lost", "2 weeks after parcel lost"),
    ],
)
def test_retention_in_words(keep: str, after: str, words: str) -> None:
    assert in_words(Retention(after=after, keep=keep, basis="law")) == words
