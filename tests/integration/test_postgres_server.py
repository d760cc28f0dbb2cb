"""Whom PostgreSQL refuses, and what survives a kill and a restore."""

from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from deploy.local.databases import Dsn, SystemDatabases, execute
from deploy.local.given_postgres import GivenPostgres
from deploy.local.interfaces import PostgresServer
from deploy.local.processes import StackError
from tests.support.infra import postgres_server

__all__ = ["postgres_server"]  # fixtures


@pytest.fixture(scope="module")
def databases(postgres_server: PostgresServer) -> tuple[tuple[str, str], tuple[str, str]]:
    """(app DSN, owner DSN) of two systems; the first has a table in `public`, and one in a schema of its own."""
    first = postgres_server.create_system_database("first-system")
    second = postgres_server.create_system_database("second")
    execute(
        first[1],
        "CREATE TABLE thing (id int)",
        "CREATE SCHEMA kit",
        "CREATE TABLE kit.numbered (id bigserial)",
        "CREATE FUNCTION kit.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    return first, second


def test_the_application_works_with_what_the_owner_made(databases: tuple[tuple[str, str], tuple[str, str]]) -> None:
    (app, _), _ = databases
    rows = [
        "INSERT INTO thing VALUES (1)",
        "UPDATE thing SET id = 2",
        "SELECT 1 / count(*) FROM thing",
        "DELETE FROM thing",
    ]
    execute(app, *rows, "INSERT INTO kit.numbered DEFAULT VALUES", "SELECT kit.one()")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE other (id int)",
        "CREATE TABLE kit.other (id int)",
        "CREATE TEMP TABLE other (id int)",
        "CREATE SCHEMA other",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE thing ADD COLUMN name text",
        "ALTER TABLE kit.numbered DISABLE TRIGGER ALL",
        "DROP TABLE thing",
        "TRUNCATE thing",
        "CREATE INDEX ON thing (id)",
        "SET ROLE first_system_owner",
        "CREATE ROLE other",
        "COPY thing TO PROGRAM 'true'",
    ],
)
def test_the_application_cannot_change_the_schema(
    databases: tuple[tuple[str, str], tuple[str, str]], statement: str
) -> None:
    (app, _), _ = databases
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(app, statement)


@pytest.mark.parametrize("database", ["second", "postgres", "template1"])
def test_the_roles_of_one_system_cannot_connect_elsewhere(
    databases: tuple[tuple[str, str], tuple[str, str]], database: str
) -> None:
    for dsn in databases[0]:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(str(replace(Dsn.parse(dsn), database=database)), "SELECT 1")


def test_a_wrong_database_password_is_refused(databases: tuple[tuple[str, str], tuple[str, str]]) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        execute(str(replace(Dsn.parse(databases[0][0]), password="wrong")), "SELECT 1")


@pytest.mark.fault(3, "kill -9 of an idle Postgres")
def test_postgres_comes_back_after_a_kill(
    postgres_server: PostgresServer, databases: tuple[tuple[str, str], tuple[str, str]]
) -> None:
    (app, _), _ = databases
    execute(app, "INSERT INTO thing VALUES (41)")
    postgres_server.kill()
    with pytest.raises(OSError):
        execute(app, "SELECT 1")
    postgres_server.start()
    execute(app, "SELECT 1 / count(*) FROM thing WHERE id = 41")


def test_a_base_backup_takes_the_place_of_the_data(
    postgres_server: PostgresServer, databases: tuple[tuple[str, str], tuple[str, str]], tmp_path: Path
) -> None:
    (app, _), _ = databases
    execute(app, "INSERT INTO thing VALUES (51)")
    postgres_server.base_backup(tmp_path / "backup")
    execute(app, "DELETE FROM thing WHERE id = 51", "INSERT INTO thing VALUES (52)")
    for _ in range(2):  # the backup is not used up
        postgres_server.replace_data(tmp_path / "backup")
        execute(app, "SELECT 1 / count(*) FROM thing WHERE id = 51")
        with pytest.raises(asyncpg.DivisionByZeroError):
            execute(app, "SELECT 1 / count(*) FROM thing WHERE id = 52")
        execute(app, "INSERT INTO thing VALUES (52)")


def test_a_given_server_gets_databases_of_our_own_and_loses_them_again(postgres_server: PostgresServer) -> None:
    """The administrator need not be a super user."""
    execute(postgres_server.admin_dsn, "CREATE ROLE keeper LOGIN CREATEDB CREATEROLE PASSWORD 'k-secret'")
    execute(postgres_server.admin_dsn, "GRANT CONNECT ON DATABASE postgres TO keeper")
    given = GivenPostgres(str(replace(Dsn.parse(postgres_server.admin_dsn), user="keeper", password="k-secret")))
    app, owner = given.create_system_database("first-system")  # the plain name is taken
    execute(owner, "CREATE TABLE thing (id int)")
    execute(app, "INSERT INTO thing VALUES (1)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(app, "DROP TABLE thing")
    with pytest.raises(StackError, match="POSTGRES_DSN"):
        given.kill()
    given.close()
    with pytest.raises(asyncpg.PostgresError):
        execute(owner, "SELECT 1")
    execute(postgres_server.admin_dsn, "REVOKE CONNECT ON DATABASE postgres FROM keeper", "DROP ROLE keeper")


def test_databases_of_two_suffixes_stand_side_by_side(postgres_server: PostgresServer) -> None:
    pair = [SystemDatabases(postgres_server.admin_dsn, suffix) for suffix in ("_x", "_y")]
    for one in pair:
        one.create("order")
    for one in pair:
        one.drop_all()
