"""The texts of mails: one file per template and language, whose first line is the mail's subject.

The HTML part is made of the same paragraphs, so that both parts say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, meta, select_autoescape

from account_service.mails import domain
from account_service.mails.domain import FIELDS, Language
from servicekit.core.errors import Misconfigured

TEXTS: Final = Path(__file__).parent / "texts"
_LAYOUT: Final = "layout.html"


@dataclass(frozen=True)
class Rendered:
    subject: str
    text: str
    html: str


class Templates:
    """All templates, compiled. Raises `Misconfigured` for one that is missing or uses a field outside its allow-list."""

    def __init__(self, folder: Path = TEXTS) -> None:
        # Text is not escaped; the layout, an HTML file, is.
        environment = Environment(
            loader=FileSystemLoader(folder), undefined=StrictUndefined, autoescape=select_autoescape(["html"])
        )
        self._layout = environment.get_template(_LAYOUT)
        self._texts = {
            (template, language): _load(environment, folder, template, language)
            for template in domain.Template
            for language in Language
        }

    def render(self, template: domain.Template, language: Language, fields: Mapping[str, str]) -> Rendered:
        """Raises `ValueError` unless `fields` are exactly those of the template's allow-list."""
        if fields.keys() != FIELDS[template]:
            raise ValueError(f"the template {template} takes other fields")
        subject, _, text = self._texts[template, language].render(fields).strip().partition("\n")
        paragraphs = [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]
        html = self._layout.render(language=language.value, subject=subject, paragraphs=paragraphs)
        return Rendered(subject, "\n\n".join(paragraphs) + "\n", html)


def _load(environment: Environment, folder: Path, template: domain.Template, language: Language) -> Template:
    name = f"{template}.{language}.txt"
    try:
        used = meta.find_undeclared_variables(environment.parse((folder / name).read_text("utf-8")))
        loaded = environment.get_template(name)
    except (OSError, TemplateError) as error:
        raise Misconfigured(f"The mail template {name} cannot be used: {type(error).__name__}.") from None
    beyond = sorted(used - FIELDS[template])
    if beyond:
        raise Misconfigured(
            f"The mail template {name} uses {', '.join(beyond)}, which its allow-list lacks: take it out, or review the list."
        )
    return loaded
