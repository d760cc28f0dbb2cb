"""The public policy page, rendered from the policy document: what is collected, why, how long, who receives it. Pure.

Semantic HTML without scripts; everything from the document is escaped. Clauses are worded for people in `clauses.py`.
"""

import re
from collections.abc import Iterable
from html import escape
from typing import Final

from privacy_service.clauses import CLAUSES, PARTS
from servicekit.core.errors import Misconfigured
from servicekit.core.policy import ClassRule, Policy, Retention

_UNITS: Final = {"Y": "year", "M": "month", "W": "week", "D": "day"}
_AFTER: Final = {
    "account_closed": "the account is closed",
    "order_delivered": "the order is delivered",
    "order_closed": "the order is closed",
    "month_ended": "the month ends",
    "day_ended": "the day ends",
    "event_published": "the event",
    "export_ready": "it is ready to be fetched",
}

_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1.0625rem/1.6 system-ui, sans-serif; color: #1d2129; background: #fdfdfb; }
main { max-width: 42rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #d9d9d2; }
h3 { font-size: 1.06rem; margin: 1.75rem 0 .4rem; }
p, ul, dl { margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .35rem 0; }
dt { font-size: .85rem; color: #5b6270; margin-top: .5rem; }
dd { margin: 0; overflow-wrap: anywhere; }
a { color: #0b57a4; }
.id { font-size: .8rem; color: #5b6270; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e0; background: #16181c; }
  h2 { border-color: #3a3d44; }
  dt, .id { color: #a0a6b2; }
  a { color: #8ab8ee; }
}
@media print { body { font-size: 10pt; } }
"""


def render_policy(policy: Policy) -> str:
    """The page. Raises `Misconfigured` for a clause that nobody has worded for people yet (clause V2)."""
    unworded = [clause for clause in policy.clauses if clause not in CLAUSES]
    if unworded:
        raise Misconfigured(f"Word the clauses {', '.join(unworded)} for people in clauses.py, then start again.")
    sections = (
        ("data", "What we hold, why and for how long", _classes(policy)),
        ("purposes", "What we use it for", _purposes(policy)),
        ("recipients", "Who receives it", _recipients(policy)),
        ("systems", "Where it lies", _systems(policy)),
        *((f"part-{letter}", title, _clauses(policy, letter)) for letter, title in PARTS.items()),
    )
    contents = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{escape(title)}</h2>{html}</section>' for key, title, html in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Privacy policy</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>What we do with your data</h1>
<p>Version {escape(policy.version)}, in force as long as it stands here.
{escape(policy.controller.name)} answers for it: {escape(policy.controller.contact)}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
{body}
</main>
</body>
</html>
"""


def _classes(policy: Policy) -> str:
    return "".join(_class(policy, rule) for rule in policy.classes.values())


def _class(policy: Policy, rule: ClassRule) -> str:
    why = (policy.purposes[name].title for name in rule.purposes)
    who = [policy.recipients[name].title for name in rule.recipients]
    rows = (
        ("What it is", ", ".join(dict.fromkeys(map(_category, rule.categories)))),
        ("What for", "; ".join(why)),
        ("How long", f"{in_words(rule.retention)} ({rule.retention.basis})"),
        ("Who receives it", ", ".join(who) or "Nobody outside"),
    )
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f"<article><h3>{escape(rule.title)}</h3><dl>{terms}</dl></article>"


def _purposes(policy: Policy) -> str:
    return _list(f"{escape(rule.title)} {_links(rule.clauses)}" for rule in policy.purposes.values())


def _recipients(policy: Policy) -> str:
    lead = "<p>Outside our own systems, only these, and only what a delivery or a mail needs:</p>"
    return lead + _list(f"{escape(rule.title)} {_links(rule.clauses)}" for rule in policy.recipients.values())


def _systems(policy: Policy) -> str:
    return _list(
        f"{escape(system.title)}: {escape('; '.join(policy.classes[name].title for name in system.holds))}"
        for system in policy.systems.values()
    )


def _clauses(policy: Policy, letter: str) -> str:
    return _list(
        f'<span id="{clause}">{escape(CLAUSES[clause])}</span> <span class="id">{clause}</span>'
        for clause in policy.clauses
        if clause.startswith(letter)
    )


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _links(clauses: Iterable[str]) -> str:
    return " ".join(f'<a class="id" href="#{escape(clause)}">{escape(clause)}</a>' for clause in clauses)


def _category(key: str) -> str:
    """`user.contact.phone_number` → phone number; all of a person (`user`) → anything the record held."""
    return key.rpartition(".")[2].replace("_", " ") if "." in key else "anything the record held"


def in_words(retention: Retention) -> str:
    """`P30D` after account_closed → 30 days after the account is closed."""
    kept = f"{_period(retention.keep)} after {_AFTER.get(retention.after, retention.after.replace('_', ' '))}"
    return kept if retention.unused is None else f"{kept}, or {_period(retention.unused)} without use"


def _period(period: str) -> str:
    return " and ".join(
        f"{int(count)} {_UNITS[unit]}{'' if int(count) == 1 else 's'}"
        for count, unit in re.findall(r"(\d+)([YMWD])", period)
    )
