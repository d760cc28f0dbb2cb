"""Mails' texts: each template in each language, and no field beyond the allow-list (law L9)."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import ValidationError

from account_service.mails.domain import FIELDS, Language, Template, pause_after
from account_service.mails.smtp import Smtp, Undeliverable, compose, envelope_address
from account_service.mails.templates import TEXTS, Rendered, Templates
from account_service.schemas import GuestBody
from account_service.settings import AccountSettings
from servicekit.core.errors import Misconfigured

NOW = datetime(2026, 11, 30, tzinfo=UTC)


# Encoded words (RFC 2047), on which the library of the headers fails, or which it reads as line breaks.
ENCODED = [
    "=?utf-8?q??=@example.com",
    "=?utf-8?b?!!!?=@example.com",
    "=?utf-8?q?=0D=0ABcc=3Ax?=@example.com",
    "=?utf-8?q?eve?=@example.com",
    "a@=?utf-8?q?=0D=0Ax?=.com",
]


def settings(**given: object) -> AccountSettings:
    return AccountSettings.model_validate({"smtp_host": "127.0.0.1", "mail_from": "shop@shop.example"} | given)


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("template", Template)
def test_every_template_shows_its_fields_in_every_language_in_both_parts(
    template: Template, language: Language
) -> None:
    fields = {name: f"<value of {name}>" for name in FIELDS[template]}
    rendered = Templates().render(template, language, fields)
    assert rendered.subject
    assert f'lang="{language}"' in rendered.html
    for name in fields:
        assert f"<value of {name}>" in rendered.text
        assert f"&lt;value of {name}&gt;" in rendered.html
        assert f"<value of {name}>" not in rendered.html


def test_a_template_that_uses_another_field_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    shutil.copytree(TEXTS, folder)
    (folder / "email_changed.de.txt").write_text("Neu\n\nJetzt {{ new_address }}, am {{ day }}.")
    with pytest.raises(Misconfigured, match="new_address"):
        Templates(folder)


def test_a_template_gets_no_field_that_its_list_lacks() -> None:
    with pytest.raises(ValueError, match="other fields"):
        Templates().render(Template.EMAIL_CHANGED, Language.EN, {"day": "2026-11-30", "email": "jane@example.org"})


def test_pauses_double_up_to_an_hour() -> None:
    minute = timedelta(minutes=1)
    assert [pause_after(tries, minute) for tries in (1, 2, 3, 7, 1000)] == [
        minute, 2 * minute, 4 * minute, timedelta(hours=1), timedelta(hours=1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [
        "jane>@example.org",
        "a,b@example.org",
        "jane@exa<mple.org",
        '"a b"@example.org',
        "jane\r\nRCPT@example.org",
        "jane@localhost",
        *ENCODED,
    ],
)
def test_addresses_that_could_break_a_command_are_never_sent_to(address: str) -> None:
    with pytest.raises(Undeliverable):
        compose(settings(), UUID(int=1), address, Rendered("s", "t", "h"), Language.EN, NOW)


@pytest.mark.parametrize("address", [*ENCODED, "a@\uff1d\uff1futf-8\uff1fq\uff1fx\uff1f\uff1d.com"])
@pytest.mark.attack("an address that a reader of mails decodes to something else", expected="422")
def test_addresses_with_encoded_words_are_refused(address: str) -> None:
    with pytest.raises(ValidationError) as refused:
        GuestBody(email=address)
    assert address not in str(refused.value)


def test_a_mail_that_is_sent_again_has_the_same_message_id() -> None:
    ids = {
        compose(settings(), UUID(int=1), "jane@example.org", Rendered("s", "t", "h"), Language.EN, at)["Message-ID"]
        for at in (NOW, NOW + timedelta(hours=1))
    }
    assert ids == {f"<{UUID(int=1)}@shop.example>"}


def test_domains_of_other_scripts_are_sent_to_in_ascii() -> None:
    assert envelope_address("jane@müller.example") == "jane@xn--mller-kva.example"
    assert envelope_address("jäne@müller.example") == "jäne@müller.example"


def test_mail_crosses_no_network_in_clear() -> None:
    Smtp(settings(smtp_starttls=False))
    with pytest.raises(Misconfigured, match="SMTP_STARTTLS"):
        Smtp(settings(smtp_starttls=False, smtp_host="mail.example.org"))
