"""The index of a package: a page that people can read without a network. Pure.

Semantic HTML without scripts; everything that comes from outside this module is escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

from privacy_service.export.domain import Facts, Shown, Table

# What our own tables are, for people; another's are named by system and table.
_TITLES: Final = {
    ("account", "accounts"): "Your account",
    ("account", "addresses"): "Your address book",
    ("account", "favourites"): "Your favourites",
    ("account", "browsing"): "Pages you looked at",
    ("account", "notices"): "News about your orders",
    ("account", "mails"): "Mails we sent you",
    ("order", "orders"): "Your orders and how they went",
    ("order", "order_deliveries"): "Where orders were sent",
    ("order", "order_registrations"): "Your numbers with tax and customs authorities",
    ("order", "order_records"): "What you ordered",
    ("order", "order_payments"): "Payment verification",
    ("logistics-gateway", "disclosures"): "Parcels handed to carriers",
}
_LOOKS: Final = {
    "find_email": "Searched for an e-mail address",
    "find_phone": "Searched for a phone number",
    "find_order_number": "Searched for an order number",
    "inventory": "Looked at what is held about you",
    "probe": "Asked all systems how much they hold",
    "tax_record": "Looked at the record of an order that the law keeps",
    "export_link": "Made a link to this package",
}
_INTRO: Final = {
    "access": "Everything that our systems hold about you, who received some of it, and when our staff looked at it.",
    "portability": "What you gave us and what your use of the shop left behind, in a form that other services can read.",
}

_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1.0625rem/1.6 system-ui, sans-serif; color: #1d2129; background: #fdfdfb; }
main { max-width: 48rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid #d9d9d2; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { margin: .5rem 0; }
a { color: #0b57a4; }
a:focus-visible { outline: 3px solid #0b57a4; outline-offset: 2px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: #5b6270; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid #d9d9d2; }
th { font-weight: 600; }
td.count { font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: minmax(8rem, 15rem) 1fr; gap: .2rem 1rem; margin: .4rem 0 0; }
dt { color: #5b6270; }
dd { margin: 0; overflow-wrap: anywhere; }
.quiet { color: #5b6270; font-size: .9rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e0; background: #16181c; }
  h2, th, td { border-color: #3a3d44; }
  dt, caption, .quiet { color: #a0a6b2; }
  a { color: #8ab8ee; }
  a:focus-visible { outline-color: #8ab8ee; }
}
@media print { body { font-size: 10pt; } }
"""


def render_index(facts: Facts, tables: Sequence[Table], lists: Mapping[str, Shown]) -> str:
    """The page of a package with these tables, and with these lists by their file's name."""
    policy = facts.policy
    sections = [_section(f"part-{number}", _title(facts, table), _table(table)) for number, table in enumerate(tables)]
    if "disclosures.json" in lists:
        content = _disclosures(facts, lists["disclosures.json"])
        sections.append(_section("disclosures", "Who received it outside", content))
    if "staff_looks.json" in lists:
        sections.append(_section("looks", "When our staff looked at it", _looks(lists["staff_looks.json"])))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Your data</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Your data</h1>
<p>{escape(_INTRO[facts.kind])}</p>
<p>Made on {_time(facts.made_at)} under version {escape(policy.version)} of our privacy policy.
{escape(policy.controller.name)} answers for it: {escape(policy.controller.contact)}</p>
</header>
{_contents(facts, tables, lists)}
{"".join(sections)}
{_section("files", "About these files", _about(lists))}
</main>
</body>
</html>
"""


def _contents(facts: Facts, tables: Sequence[Table], lists: Mapping[str, Shown]) -> str:
    rows = [
        (f"#part-{number}", _title(facts, table), _system(facts, table.system), table.row_count)
        for number, table in enumerate(tables)
    ]
    if "disclosures.json" in lists:
        rows.append(("#disclosures", "Who received it outside", "", lists["disclosures.json"].count))
    if "staff_looks.json" in lists:
        rows.append(("#looks", "When our staff looked at it", "", lists["staff_looks.json"].count))
    if not rows:
        return "<p>Our systems hold nothing of this kind about you.</p>"
    body = "".join(
        f'<tr><th scope="row"><a href="{link}">{escape(title)}</a></th><td>{escape(system)}</td>'
        f'<td class="count">{count}</td></tr>'
        for link, title, system, count in rows
    )
    head = '<tr><th scope="col">What</th><th scope="col">Where it lies</th><th scope="col">Entries</th></tr>'
    caption = "<caption>What is in this package</caption>"
    return f'<nav aria-label="Contents" class="wide"><table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table></nav>'


def _table(table: Table) -> str:
    entries = "".join(
        f"<article><h3>Entry {number}</h3>{_terms(cells)}</article>" for number, cells in enumerate(table.shown, 1)
    )
    path = escape(table.path)
    all_of_it = f'<p>As data: <a href="{path}.json">JSON</a>, <a href="{path}.csv">CSV</a>.</p>'
    return f"{all_of_it}{entries}{_rest(len(table.shown), table.row_count)}"


def _terms(cells: Iterable[tuple[str, str]]) -> str:
    terms = "".join(f"<dt>{escape(_label(name))}</dt><dd>{escape(text)}</dd>" for name, text in cells if text)
    return f"<dl>{terms}</dl>"


def _disclosures(facts: Facts, shown: Shown) -> str:
    if not shown.count:
        return "<p>Nobody outside received anything.</p>"
    rows = (
        (
            _time(datetime.fromisoformat(item["first_sent"])),
            escape(_recipient(facts, item["recipient"])),
            escape(", ".join(map(_label, item["fields"]))),
        )
        for item in shown.items
    )
    return _grid("disclosures.json", ("When", "Who", "Which fields"), rows, shown)


def _looks(shown: Shown) -> str:
    if not shown.count:
        return "<p>Nobody looked.</p>"
    rows = (
        (
            _time(datetime.fromisoformat(item["at"])),
            escape(_label(item["role"])),
            escape(_LOOKS.get(item["kind"], _label(item["kind"]))),
        )
        for item in shown.items
    )
    return _grid("staff_looks.json", ("When", "Role", "What"), rows, shown)


def _grid(path: str, names: Sequence[str], rows: Iterable[Sequence[str]], shown: Shown) -> str:
    """`rows` are escaped already."""
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<p>As data: <a href="{path}">JSON</a>.</p>{table}{_rest(len(shown.items), shown.count)}'


def _rest(shown: int, count: int) -> str:
    left = count - shown
    if not left:
        return ""
    return f'<p class="quiet">{left} more {"entry is" if left == 1 else "entries are"} in the files above.</p>'


def _about(lists: Mapping[str, Shown]) -> str:
    names = '<a href="manifest.json">manifest.json</a> lists every other file with its SHA-256.'
    schemas = "The folder schemas says what the values in the JSON files mean (JSON Schema)."
    formulas = (
        "In the CSV files a text that a spreadsheet would take for a formula, also a phone number with its plus, begins"
        " with an apostrophe. The JSON files have every value exactly."
    )
    looks = " Who of our staff looked is not in here; we know it." if "staff_looks.json" in lists else ""
    return f"<p>{names}{looks}</p><p>{schemas}</p><p>{formulas}</p>"


def _section(key: str, title: str, content: str) -> str:
    return f'<section id="{key}"><h2>{escape(title)}</h2>{content}</section>'


def _title(facts: Facts, table: Table) -> str:
    own = _TITLES.get((table.system, table.name))
    return own or f"{_system(facts, table.system)}: {_label(table.name)}"


def _system(facts: Facts, name: str) -> str:
    system = facts.policy.systems.get(name)
    return system.title if system else name


def _recipient(facts: Facts, name: str) -> str:
    recipient = facts.policy.recipients.get(name)
    return recipient.title if recipient else name


def _label(name: Any) -> str:
    """`delivery.consignee.postal_code` → Delivery, consignee, postal code."""
    words = str(name).replace(".", ", ").replace("_", " ")
    return words[:1].upper() + words[1:]


def _time(at: datetime) -> str:
    return f'<time datetime="{at.isoformat()}">{at:%-d %B %Y, %H:%M} UTC</time>'
