"""The stack as a whole: its processes, its keys, its commands, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from deploy.local import keys
from deploy.local.databases import execute
from deploy.local.kafka_admin import admin_client
from deploy.local.processes import Port, StackError, find, wait_gone
from deploy.local.services import ROOT, ServiceSpec
from deploy.local.stack import Stack
from tests.support.infra import new_kafka, new_postgres

STUB = ServiceSpec("stub", "tests.support.stub_service", (ROOT,), roles=("api", "jobs"))


def test_keys_are_for_their_user_only_and_tokens_verify(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys.write_keys(folder, ["account", "vault"], ["meridian"])
    assert {oct(path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*"))} == {"0o700", "0o600"}
    public = OKPKey.import_key((folder / "staff.pub.pem").read_bytes())
    claims = jwt.decode(keys.staff_token(folder, "privacy_officer"), public, algorithms=["Ed25519"]).claims
    assert (claims["iss"], claims["aud"], claims["role"]) == ("staff", "shop", "privacy_officer")
    assert "d" not in json.loads((folder / "carriers" / "meridian.json").read_text())
    with pytest.raises(FileExistsError):
        keys.add_service(folder, "account")


def test_a_port_is_ours_while_nobody_listens() -> None:
    ports = [Port() for _ in range(50)]
    assert len({port.number for port in ports}) == 50
    assert not any(port.is_open() for port in ports)
    for port in ports:
        port.release()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole stack around a stub service, split into its roles."""
    kafka = new_kafka(tmp_path_factory.mktemp("stack") / "kafka")
    with Stack([STUB], split=True, kafka=kafka, postgres=new_postgres()) as stack:
        yield stack


def test_processes_die_pause_and_come_back_on_the_same_port(stack: Stack) -> None:
    process = stack.process("stub", "api")
    url = process.url
    process.pause()
    assert process.health() == {}
    process.resume()
    assert process.health()["role"] == "api"
    process.kill()
    assert (process.pid, process.exit_code, process.health()) == (None, -signal.SIGKILL, {})
    process.start()
    assert (process.url, process.health()["ok"]) == (url, True)
    another = stack.start_another("stub", "api")
    assert another.url != url
    assert another.health()["ok"]
    another.stop()
    assert another.exit_code == 0


def test_migrations_run_as_the_owner_and_processes_do_not_have_its_password(stack: Stack) -> None:
    execute(stack.dsn("stub"), "INSERT INTO migrated VALUES (1)")
    assert "MIGRATIONS_DSN" not in stack.env_of("stub")


def test_migrations_have_each_their_own_environment_and_end_with_the_first_that_fails(tmp_path: Path) -> None:
    """They share a process, and nothing else."""
    (tmp_path / "one.py").write_text(
        "import os, sys; print(sys.argv[1:], sorted(os.environ)); sys.exit(int(os.environ['CODE']))"
    )
    given = json.dumps([["one", {"CODE": "0", "OWN": "x"}], ["one", {"CODE": "3"}], ["one", {"CODE": "0"}]])
    command = [sys.executable, "-m", "deploy.local.migrations"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    ran = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stdout.splitlines() == ["['migrate'] ['CODE', 'OWN']", "['migrate'] ['CODE']"]
    assert "the migration of one failed" in ran.stderr


def test_two_stacks_at_once_do_not_collide_and_leave_nothing(stack: Stack) -> None:
    with Stack([STUB]) as other:
        pids = [other.kafka.pid, other.postgres.pid, *(process.pid for process in other.processes)]
        folders = [other.folder, other.postgres.data_dir]
        assert other.process("stub").health()["ok"]
        assert stack.process("stub", "jobs").health()["ok"]
    assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)
    assert not any(folder.exists() for folder in folders if folder is not None)


def test_a_service_that_does_not_start_takes_the_stack_down_with_its_reason() -> None:
    stack = Stack([STUB])
    stack.overrides["stub"]["STUB_FAILS"] = "yes"
    with pytest.raises(StackError, match="the stub was told to fail"):
        stack.start()
    assert (stack.kafka.pid, stack.postgres.pid) == (None, None)
    assert not stack.folder.exists()


def run(local: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local.cli", "--local", str(local), *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=240)


def family(local: Path) -> list[tuple[int, float]]:
    """(pid, create time) of the supervisor and all its descendants."""
    supervisor = psutil.Process(json.loads((local / "stack.json").read_text())["supervisor"])
    return [(process.pid, process.create_time()) for process in (supervisor, *supervisor.children(recursive=True))]


def test_up_status_and_down(tmp_path: Path) -> None:
    assert run(tmp_path, "status").returncode == 3
    up = run(tmp_path, "up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        again = run(tmp_path, "up")
        assert again.returncode == 1
        assert "already" in again.stderr
        status = run(tmp_path, "status")
        assert status.returncode == 0, status.stdout
        assert all(name in status.stdout for name in ("kafka", "postgres", "vault", "logistics-gateway", "outbox"))
        environment = dict(line.split("=", 1) for line in (tmp_path / "stack.env").read_text().splitlines())
        assert (tmp_path / "stack.env").stat().st_mode & 0o777 == 0o600
        assert environment["SUPPORT_TOKEN"] != environment["OFFICER_TOKEN"]
        user, password = environment["KAFKA_MERIDIAN_USER"], environment["KAFKA_MERIDIAN_PASSWORD"]
        topics = admin_client(environment["KAFKA_BOOTSTRAP"], user, password).list_topics(timeout=10).topics
        assert set(topics) == {"carrier.meridian.shipments", "carrier.meridian.replies"}
        token = run(tmp_path, "customer-token", "12345678-1234-5678-1234-567812345678")
        assert token.stdout.count(".") == 2
        pids = family(tmp_path)
        assert len(pids) > 7
        folders = json.loads((tmp_path / "stack.json").read_text())["folders"]
    finally:
        down = run(tmp_path, "down")
    assert down.returncode == 0
    assert [pid for pid, created in pids if find(pid, created)] == []
    assert [folder for folder in folders if Path(folder).exists()] == []
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, "down").returncode == 0


def test_a_killed_supervisor_takes_its_children_along_and_down_cleans_up(tmp_path: Path) -> None:
    up = run(tmp_path, "up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        pids, state = family(tmp_path), json.loads((tmp_path / "stack.json").read_text())
        os.kill(state["supervisor"], signal.SIGKILL)
        assert wait_gone(pids, timeout=30)
        stale = run(tmp_path, "status")
        assert stale.returncode == 3
        assert "left its state behind" in stale.stderr
    finally:
        run(tmp_path, "down")
    assert [folder for folder in state["folders"] if Path(folder).exists()] == []
