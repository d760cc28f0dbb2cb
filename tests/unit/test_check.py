"""Our own build rules, where a plant on the whole tree (tests/contract/test_build_rules.py) would say too little."""

import ast
from pathlib import Path

import pytest

from deploy.check import source, tables
from deploy.check.findings import ROOT


def columns_of(folder: Path, sql: str) -> dict[str, str]:
    path = folder / "0001_test.sql"
    path.write_text(sql)
    found, problems = tables.read_columns(path)
    assert problems == []
    return {column.full_name: column.type for column in found}


def test_columns_are_read_as_postgres_reads_them(tmp_path: Path) -> None:
    sql = """
    CREATE TYPE state AS ENUM ('open', 'closed');
    CREATE TABLE public.orders (
        order_id uuid PRIMARY KEY, -- a comment, with a comma
        tags     character varying(10)[] NOT NULL DEFAULT '{}',
        state    state NOT NULL CHECK (state <> 'closed'),
        at       timestamp with time zone NOT NULL,
        "Mixed"  jsonb,
        CONSTRAINT once UNIQUE (order_id, state)
    ) PARTITION BY HASH (order_id);
    CREATE TABLE orders_0 PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text, ADD COLUMN weight integer;
    """
    assert columns_of(tmp_path, sql) == {
        "orders.order_id": "uuid",
        "orders.tags": "varchar(10)[]",
        "orders.state": "state",
        "orders.at": "timestamptz",
        "orders.Mixed": "jsonb",
        "orders.note": "text",
        "orders.weight": "int",
    }


def test_a_column_has_the_line_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "0001_test.sql"
    path.write_text("-- one\nCREATE TABLE orders (\n    order_id uuid,\n    note text\n);\n")
    found, _ = tables.read_columns(path)
    assert [(column.name, column.line) for column in found] == [("order_id", 3), ("note", 4)]


def test_sql_that_cannot_be_parsed_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "0001_test.sql"
    path.write_text("CREATE TABLE orders (order_id uuid;\n")
    found, (problem,) = tables.read_columns(path)
    assert found == []
    assert problem.what == "This SQL cannot be parsed."


def folder_of(tmp_path: Path, sql: str, reasons: str = "") -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_test.sql").write_text(sql)
    (folder / "columns.toml").write_text(reasons)
    return folder


@pytest.mark.parametrize(
    "kind", ["text", "varchar(9)", "char(2)", "json", "jsonb", "bytea", "inet", "xml", "citext", "text[]"]
)
def test_columns_that_can_hold_personal_data_need_a_holding_or_a_reason(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path, f"CREATE TABLE orders (order_id uuid, note {kind});\n")
    findings = list(tables.find_in(folder))
    assert [finding.what.partition(" is ")[0] for finding in findings] == ["orders.note"]
    (folder / "columns.toml").write_text('"orders.note" = "a code of the carrier"\n')
    assert list(tables.find_in(folder)) == []
    (folder / "columns.toml").write_text('"orders.note" = " "\n')
    assert len(list(tables.find_in(folder))) == 1


@pytest.mark.parametrize(
    "kind", ["uuid", "bigint", "integer", "numeric(10, 2)", "double precision", "real", "date", "timestamptz"]
)
def test_columns_that_cannot_hold_personal_data_need_none(tmp_path: Path, kind: str) -> None:
    assert list(tables.find_in(folder_of(tmp_path, f"CREATE TABLE orders (order_id uuid, value {kind});\n"))) == []


def test_an_enum_of_the_migrations_needs_no_holding(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "CREATE TYPE state AS ENUM ('open');\nCREATE TABLE orders (id uuid, state state);\n")
    assert list(tables.find_in(folder)) == []


def test_a_reason_for_a_column_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "CREATE TABLE orders (order_id uuid);\n", '"orders.note" = "a code"\n')
    (finding,) = tables.find_in(folder)
    assert finding.what == "orders.note is no column of these migrations."


def findings_in(text: str, name: str = "services/order/src/order_service/handlers.py") -> list[int]:
    return [finding.line for finding in source._sql(ROOT / name, ast.parse(text))]


@pytest.mark.parametrize(
    "text",
    [
        'X = "SELECT 1"',
        'X = "-- name\\nINSERT INTO orders VALUES ($1)"',
        'X = f"UPDATE {table} SET x = 1"',
        'X = "  DELETE FROM orders"',
        'X = "WITH found AS (SELECT 1) SELECT * FROM found"',
        'X = "ALTER TABLE orders ADD COLUMN x int"',
        'X = "GRANT SELECT ON orders TO app"',
        'connection.execute("anything")',
        'connection.fetch(f"{query}")',
    ],
)
def test_sql_is_found(text: str) -> None:
    assert findings_in(text) == [1]
    assert findings_in(text, "services/order/src/order_service/store.py") == []
    assert findings_in(text, "shared/servicekit/src/servicekit/db/outbox.py") == []
    assert findings_in(text, "services/order/src/order_service/outbox.py") == [1]


@pytest.mark.parametrize(
    "text",
    [
        '"""SELECT in a docstring."""',
        'X = "Select a country"',
        'X = "update the order"',
        "store.fetch(order_id)",
        'X = "DELETE"',
    ],
)
def test_what_is_no_sql_is_not_found(text: str) -> None:
    assert findings_in(text) == []


def test_a_long_module_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" * 401)
    (finding,) = source._length(path)
    assert finding.line == 401
    path.write_text("# long: one table of country codes\n" + "x = 1\n" * 401)
    assert list(source._length(path)) == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("--index-url https://packages.shop.example/simple", True),
        ("pip install --find-links /wheels", True),
        ("--extra-index-url=x", True),
        ("see https://shop.example", True),
        ("uv pip compile --no-emit-index-url --no-emit-find-links", False),
        ("pydantic==2.12.5", False),
    ],
)
def test_package_indexes_are_found_in_build_files(tmp_path: Path, line: str, is_found: bool) -> None:
    path = tmp_path / "requirements.in"
    path.write_text(f"# first\n{line}\n")
    assert [finding.line for finding in source._indexes(path)] == ([2] if is_found else [])
