"""What tests/contract/test_build_rules.py plants: one breach per build rule."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
OWN = (sys.executable, "-m", "deploy.check")
IMPORTS = (f"{BIN}/lint-imports", "--no-cache")
LINT = (f"{BIN}/ruff", "check", "--no-cache", "--output-format=concise", ".")

CONTRACTS = "shared/event-contracts/src/event_contracts"
ORDER = "services/order/src/order_service"
HOLDING = "from servicekit.participant.holdings import Holding\n\n"
MIGRATIONS = f"{ORDER}/migrations"
REFERENCES = "from event_contracts import Event, PersonalData, category\nfrom uuid import UUID\n"


@dataclass(frozen=True)
class Plant:
    """`text` is appended to `file`; the finding is at the line that holds `at`, and its output says `tells`."""

    rule: str
    command: Sequence[str]
    file: str
    text: str
    at: str
    tells: Sequence[str]


OWN_RULES = [
    Plant(
        "bare str in an event",
        OWN,
        f"{CONTRACTS}/planted_1.py",
        f'{REFERENCES}class Planted(Event, topic="t", key="order_id"):\n    order_id: UUID\n    note: str\n',
        "note: str",
        ["Planted.note: str can hold a person's data", "seal it in a PersonalData model"],
    ),
    Plant(
        "dict in an event",
        OWN,
        f"{CONTRACTS}/planted_2.py",
        f'{REFERENCES}class Planted(Event, topic="t", key="order_id"):\n    order_id: UUID\n    more: dict[str, UUID]\n',
        "more: dict",
        ["Planted.more: dict can hold anything", "declare the exact fields"],
    ),
    Plant(
        "unbounded number in an event",
        OWN,
        f"{CONTRACTS}/planted_3.py",
        f'{REFERENCES}class Planted(Event, topic="t", key="order_id"):\n    order_id: UUID\n    phone: int\n',
        "phone: int",
        ["Planted.phone: int has no bounds", "bound it"],
    ),
    Plant(
        "personal field without a category",
        OWN,
        f"{CONTRACTS}/planted_4.py",
        f'{REFERENCES}class Planted(PersonalData, data_class="identity"):\n    nick: str\n',
        "nick: str",
        ["Planted.nick: it has no category", "classify it"],
    ),
    Plant(
        "data class that the policy lacks",
        OWN,
        f"{CONTRACTS}/planted_5.py",
        f'{REFERENCES}class Planted(PersonalData, data_class="gossip"):\n    nick: str = category("user.name")\n',
        "class Planted",
        ["its data class 'gossip' is not in the policy", "give the class purposes, retention and recipients"],
    ),
    Plant(
        "bare str in a third party's event",
        OWN,
        "tests/support/planted_shop.py",
        f'{REFERENCES}class Planted(Event, topic="t", key="order_id"):\n    order_id: UUID\n    note: str\n',
        "note: str",
        ["Planted.note: str can hold a person's data", "seal it in a PersonalData model"],
    ),
    *(
        Plant(
            f"{kind} column outside a Holding",
            OWN,
            f"{MIGRATIONS}/91{number}_planted.sql",
            f"CREATE TABLE planted_{number} (\n    id uuid PRIMARY KEY,\n    note {kind} NOT NULL\n);\n",
            "note",
            [
                f"planted_{number}.note is {kind} and stands in no Holding",
                "name it in a Holding, or say in columns.toml",
            ],
        )
        for number, kind in enumerate(("text", "varchar(20)", "jsonb", "bytea", "text[]", "citext"))
    ),
    Plant(
        "text column added to a table",
        OWN,
        f"{MIGRATIONS}/9301_planted.sql",
        "-- later\nALTER TABLE orders ADD COLUMN note text;\n",
        "ALTER TABLE",
        ["orders.note is text and stands in no Holding", "name it in a Holding"],
    ),
    Plant(
        "column turned into text",
        OWN,
        f"{MIGRATIONS}/9302_planted.sql",
        "CREATE TABLE planted (id uuid, note integer);\nALTER TABLE planted ALTER COLUMN note TYPE text;\n",
        "ALTER TABLE",
        ["planted.note is text and stands in no Holding", "name it in a Holding"],
    ),
    *(
        Plant(
            f"table by {statement[:26]}",
            OWN,
            f"{MIGRATIONS}/92{number}_planted.sql",
            f"-- hidden\n{statement};\n",
            statement[:12],
            ["makes columns whose types cannot be read", "Write CREATE TABLE"],
        )
        for number, statement in enumerate(
            (
                "CREATE TABLE planted AS SELECT 'Jane'::text AS note",
                "CREATE TABLE planted (LIKE orders)",
                "CREATE MATERIALIZED VIEW planted AS SELECT 1 AS note",
                "SELECT 'Jane'::text AS note INTO planted",
                "DO $$ BEGIN EXECUTE 'CREATE TABLE planted (note text)'; END $$",
            )
        )
    ),
    Plant(
        "Holding of a column that is not there",
        OWN,
        f"{ORDER}/planted_holdings.py",
        HOLDING + 'X = Holding("orders", subject="buyer_id", anchor="planted", sealed={})\n',
        "X = ",
        ["Column orders.planted of the Holding is in no migration", "Correct the name or add the column"],
    ),
    Plant(
        "Holding that the service does not name",
        OWN,
        f"{ORDER}/planted_holding.py",
        HOLDING + 'X = Holding("orders", subject="buyer_id", anchor="order_id", sealed={})\n',
        "X = ",
        ["The Holding of orders is not among the holdings of the Service", "Name it in Service(…, holdings=[…])"],
    ),
    Plant(
        "SQL outside store.py",
        OWN,
        f"{ORDER}/handlers.py",
        '\n\nPLANTED = "SELECT order_id FROM orders WHERE buyer_id = $1"\n',
        "PLANTED = ",
        ["It holds SQL", "Move it to a function of store.py"],
    ),
    Plant(
        "SQL outside store.py, in an f-string with a comment",
        OWN,
        f"{ORDER}/handlers.py",
        '\n\ndef planted(table: str) -> str:\n    return f"-- planted\\nDELETE FROM {table}"\n',
        "return f",
        ["It holds SQL", "Move it to a function of store.py"],
    ),
    Plant(
        "a statement for the database outside store.py",
        OWN,
        f"{ORDER}/http.py",
        '\n\nasync def planted(db: object) -> None:\n    await db.execute("vacuum")\n',
        'db.execute("',
        ["It calls the database with a statement of its own", "Move it to a function of store.py"],
    ),
    Plant(
        "long module",
        OWN,
        f"{ORDER}/planted_long.py",
        "# one of many\n" * 401,
        "",
        ["It has 401 lines", "Split it, or give the reason"],
    ),
    Plant(
        "library in the contracts",
        OWN,
        f"{CONTRACTS}/planted_6.py",
        "import httpx\n",
        "import httpx",
        ["event_contracts imports httpx", "Keep I/O and crypto in servicekit"],
    ),
    *(
        Plant(
            f"private name of servicekit in a third party: {number}",
            OWN,
            f"tests/support/reviews/planted_{number}.py",
            f"{statement}\n",
            statement,
            [f"A third party imports {name}.", "Take it from the names of `servicekit`"],
        )
        for number, (statement, name) in enumerate(
            (
                ("from servicekit.core.clock import Clock", "servicekit.core.clock"),
                ("from servicekit import kit", "servicekit.kit"),
                ("import servicekit.kit", "servicekit.kit"),
            )
        )
    ),
    Plant(
        "package index",
        OWN,
        "requirements.in",
        "--index-url https://packages.shop.example/simple\n",
        "--index-url",
        ["It names a package index", "Take the address or the option out"],
    ),
    *(
        Plant(
            f"circle of imports in {circle[0].split('.')[0]}",
            OWN,
            file,
            f"\n\ndef planted() -> None:\n    import {circle[1]}\n",
            f"import {circle[1]}",
            [f"It closes a circle of imports: {' -> '.join(circle)}.", "Turn one import round"],
        )
        for file, circle in (
            (
                "shared/servicekit/src/servicekit/db/postgres.py",
                ("servicekit.db.postgres", "servicekit.db.outbox", "servicekit.db.postgres"),
            ),
            ("deploy/local/processes.py", ("deploy.local.processes", "deploy.local.cli", "deploy.local.processes")),
        )
    ),
]
POLICY_RULE = Plant(
    "class without purpose, retention and recipients",
    OWN,
    "shared/policy/planted.yaml",
    "classes:\n  gossip:\n    title: What people say\n    categories: [user.name]\n",
    "gossip:",
    ["classes.gossip.purposes: is missing", "Correct the policy document"],
)
LINT_RULES = [
    Plant(
        "time in a domain",
        LINT,
        f"{ORDER}/domain.py",
        "\n\nfrom datetime import UTC, datetime\n\nPLANTED_TIME = datetime.now(UTC)\n",
        "PLANTED_TIME",
        ["take it from kit.clock, or as an argument in domain.py"],
    ),
    Plant(
        "id that tells machine and time",
        LINT,
        f"{ORDER}/domain.py",
        "\n\nimport uuid\n\nPLANTED_ID = uuid.uuid1()\n",
        "PLANTED_ID",
        ["ids are random (law L2), so take uuid4"],
    ),
    Plant(
        "print in a service",
        LINT,
        f"{ORDER}/handlers.py",
        '\n\nprint("planted")\n',
        'print("planted")',
        ["`print` found"],
    ),
]
IMPORT_RULES = [
    Plant(
        "tool that imports the tests",
        IMPORTS,
        "deploy/local/planted.py",
        "import tests.support.staff\n",
        "tests",
        ["The tools take nothing of the tests", "deploy.local.planted -> tests"],
    ),
    Plant(
        "product that imports a tool",
        IMPORTS,
        "shared/servicekit/src/servicekit/planted_2.py",
        "import deploy.local.keys\n",
        "deploy",
        ["The product takes nothing of its tools and tests", "servicekit.planted_2 -> deploy.local.keys"],
    ),
    Plant(
        "service that imports a service",
        IMPORTS,
        f"{ORDER}/planted.py",
        "import account_service.domain\n",
        "account_service",
        [
            "Services know each other by their events only",
            "order_service.planted -> account_service.domain",
        ],
    ),
    Plant(
        "kit that imports a service",
        IMPORTS,
        "shared/servicekit/src/servicekit/planted.py",
        "import order_service.domain\n",
        "import",
        [
            "Imports point downwards only",
            "servicekit.planted -> order_service.domain",
        ],
    ),
    Plant(
        "domain that does I/O",
        IMPORTS,
        f"{ORDER}/domain.py",
        "\nimport asyncpg\n",
        "import asyncpg",
        [
            "Domains, the lane projection, tokens and contracts do no I/O, by no way",
            "order_service.domain -> asyncpg",
        ],
    ),
    Plant(
        "Kafka past the kit",
        IMPORTS,
        f"{ORDER}/planted.py",
        "import aiokafka\n",
        "aiokafka",
        [
            "Only servicekit.kafka.client and the modules beside it speak to Kafka",
            "order_service.planted -> aiokafka",
        ],
    ),
    Plant(
        "store that knows HTTP",
        IMPORTS,
        f"{ORDER}/store.py",
        "\nimport order_service.http\n",
        "import order_service.http",
        [
            "Inside a service: app, http, handlers, then domain and store",
            "order_service.store -> order_service.http",
        ],
    ),
]
