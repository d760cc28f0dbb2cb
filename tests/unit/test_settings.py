"""Settings come from the environment, and what is missing is named."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servicekit.core.clock import Clock
from servicekit.core.errors import Misconfigured
from servicekit.core.settings import Settings


def test_the_environment_is_read_and_empty_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICY_FILES", "a.yaml:b.yaml")
    monkeypatch.setenv("HTTP_PORT", "8123")
    monkeypatch.setenv("ID_KEY_FILE", "")
    settings = Settings()
    assert settings.policy_files == (Path("a.yaml"), Path("b.yaml"))
    assert (settings.http_port, settings.id_key_file) == (8123, None)


def test_a_role_names_the_variables_that_it_lacks() -> None:
    with pytest.raises(Misconfigured, match="KAFKA_BOOTSTRAP, VAULT_URL"):
        Settings(database_dsn="postgresql://x").require("database_dsn", "kafka_bootstrap", "vault_url")


def test_key_files_are_read_and_their_absence_is_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret\n")
    assert Settings(kafka_password_file=file).read("kafka_password_file") == b"secret"
    with pytest.raises(Misconfigured, match="KAFKA_PASSWORD_FILE"):
        Settings(kafka_password_file=tmp_path / "none").read("kafka_password_file")


def test_passwords_in_a_dsn_are_not_shown() -> None:
    assert "secret" not in repr(Settings(database_dsn="postgresql://a:secret@h/d", migrations_dsn="x:secret@"))


def test_tests_can_move_the_clock_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOCK_OFFSET_SECONDS", "86400")
    assert Clock().now() - datetime.now(UTC) > timedelta(hours=23)
