"""A participant and the list of revocations on real Postgres: late writers (docs/protocols.md#fence-wait-out-sweep), the gate."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.databases import IDLE_SECONDS, Dsn, execute
from deploy.local.interfaces import PostgresServer
from event_contracts import Sealed
from event_contracts.personal import PersonalData, category
from event_contracts.privacy import EraseHoldings
from event_contracts.vault_api import Entry, RevocationAction, RevocationPage
from servicekit import Holding, Kit, Received, Settings, Tx
from servicekit.core import faults
from servicekit.core.errors import Fenced, Misconfigured, Unavailable
from servicekit.core.health import Health
from servicekit.core.revocation_list import FIRST_HASH, make_entry
from servicekit.db import writers
from servicekit.db.writers import OldestWriter, check_writers, read_writers
from servicekit.participant.participant import ANSWERS, participant
from servicekit.participant.revocations import Follower, ListDiffers, apply_entries
from tests.support.infra import postgres_server
from tests.support.kits import FakeVault, open_test_kit

__all__ = ["postgres_server"]

TABLE = "CREATE TABLE notes (note_id uuid PRIMARY KEY, person_id uuid NOT NULL, note bytea)"
SYSTEM = "notes"


class Note(PersonalData, data_class="identity"):
    text: str = category("user.name")


HOLDINGS = [Holding("notes", subject="person_id", anchor="note_id", sealed={"note": Note})]


@dataclass
class ListVault(FakeVault):
    """The vault's list as this process has it; `is_away`: nobody answers."""

    incarnation: str = "first"
    entries: list[Entry] = field(default_factory=list)
    is_away: bool = False

    def add(self, action: RevocationAction, subject: UUID, key_ids: Iterable[UUID], *, is_final: bool = False) -> int:
        previous = self.entries[-1].hash if self.entries else FIRST_HASH
        number, keys = len(self.entries) + 1, list(key_ids)
        entry = make_entry(number, action, uuid4(), subject, is_final=is_final, key_ids=keys, previous_hash=previous)
        self.entries.append(entry)
        return number

    async def revocations(self, after: int, wait: float, done: int | None = None, limit: int = 500) -> RevocationPage:
        if self.is_away:
            raise Unavailable
        return RevocationPage(self.incarnation, len(self.entries), self.entries[after : after + limit])

    def apply(self, incarnation: str, revision: int, key_ids: Iterable[UUID]) -> None:
        """This process holds no lease."""


@dataclass
class Shelf:
    """A system with one table, a person in it, and the vault's list."""

    kit: Kit
    vault: ListVault
    owner_dsn: str
    person: UUID = field(default_factory=uuid4)

    async def sealed(self) -> tuple[UUID, Sealed[Note]]:
        note_id = uuid4()
        return note_id, await self.kit.seal(Note(text="Jane"), subject=self.person, anchor=note_id)

    async def write(self, note_id: UUID, note: Sealed[Note]) -> None:
        async def work(tx: Tx) -> None:
            await tx.execute("INSERT INTO notes VALUES ($1, $2, $3)", note_id, self.person, note)

        await self.kit.run_tx("write", work)

    async def written(self) -> Sealed[Note]:
        note_id, note = await self.sealed()
        await self.write(note_id, note)
        return note

    async def follow(self) -> None:
        """What is new of the list is applied, as the follower of any process of this system does it."""
        vault = self.vault
        await self.kit.run_tx("apply", lambda tx: apply_entries(tx, HOLDINGS, vault.incarnation, vault.entries))

    async def erase(self, number: int) -> dict[str, Any]:
        """The command as the participant's reader takes it. Returns the answer that waits in the outbox."""
        reader, request_id = participant(HOLDINGS), uuid4()
        command = EraseHoldings(request_id=request_id, subject_id=self.person, number=number)
        received = [Received(command, uuid4(), self.kit.clock.now(), "privacy", "privacy.commands", 0, 0)]
        assert reader.prepare is not None
        assert reader.apply is not None
        apply = reader.apply
        prepared = await reader.prepare(self.kit, received)
        await self.kit.run_tx("erase", lambda tx: apply(self.kit, tx, received, prepared))
        answer = await self.kit.db.fetchval("SELECT body FROM kit.outbox ORDER BY number DESC LIMIT 1")
        said: dict[str, Any] = json.loads(answer)
        return said

    async def rows(self) -> int:
        return int(await self.kit.db.fetchval("SELECT count(*) FROM notes WHERE person_id = $1", self.person))

    def follower(self) -> Follower:
        return Follower(self.kit, HOLDINGS, Health(SYSTEM, "all", "1", self.kit.clock))


@pytest.fixture
async def shelf(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Shelf]:
    (tmp_path / "0001_notes.sql").write_text(TABLE)
    dsns = postgres_server.create_system_database(f"{SYSTEM}{uuid4().hex[:8]}")
    async with open_test_kit(SYSTEM, dsns, Settings(), ANSWERS, [tmp_path]) as kit:
        vault: Any = ListVault()
        yield Shelf(replace(kit, vault=vault), vault, dsns[1])


# --- fence, wait out, sweep (docs/protocols.md#fence-wait-out-sweep) ---


@pytest.mark.parametrize("drawn", ["before_the_fence_begins", "before_the_fence_commits"])
async def test_a_paused_writer_that_missed_the_fence_is_waited_for_and_its_row_swept(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    """It read the fences before there was one, and commits after the first sweep. Without a later id none has ended."""
    fencing, has_read, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    refuse_revoked = Tx.refuse_revoked

    async def stands_still(tx: Tx) -> None:
        await refuse_revoked(tx)
        if tx._named:
            has_read.set()
            await go_on.wait()

    async def fence(tx: Tx) -> None:
        fencing.set()
        await has_read.wait()
        await apply_entries(tx, HOLDINGS, shelf.vault.incarnation, shelf.vault.entries)

    monkeypatch.setattr(Tx, "refuse_revoked", stands_still)
    note_id, note = await shelf.sealed()
    number = shelf.vault.add("fence", shelf.person, [note.key_id])
    following = asyncio.create_task(shelf.kit.run_tx("fence", fence)) if drawn == "before_the_fence_commits" else None
    if following is not None:
        await fencing.wait()
    writing = asyncio.create_task(shelf.write(note_id, note))
    await has_read.wait()
    await (following or shelf.follow())
    erasing = asyncio.create_task(shelf.erase(number))
    done, _ = await asyncio.wait([erasing], timeout=1)
    answered_early = bool(done)
    go_on.set()
    await writing
    assert not answered_early, "the participant answered while a writer that had missed the fence was still under way"
    answer = await erasing
    assert (answer["left"], await shelf.rows()) == (0, 0), "the late row is still there"


@pytest.mark.fault(1, "a crash between the fence and the sweep of a system that nobody commands")
async def test_a_system_that_nobody_commands_waits_for_older_writers_before_it_sweeps(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_read, go_on = asyncio.Event(), asyncio.Event()
    refuse_revoked = Tx.refuse_revoked

    async def stands_still(tx: Tx) -> None:
        await refuse_revoked(tx)
        if tx._named:
            has_read.set()
            await go_on.wait()

    monkeypatch.setattr(Tx, "refuse_revoked", stands_still)
    note_id, note = await shelf.sealed()
    writing = asyncio.create_task(shelf.write(note_id, note))
    await has_read.wait()
    shelf.vault.add("fence", shelf.person, [note.key_id])
    follower = Follower(shelf.kit, HOLDINGS, Health(SYSTEM, "all", "1", shelf.kit.clock), is_alone=True)
    faults.arm({"revocations.fenced": faults.Fault("error")})
    with pytest.raises(faults.InjectedFault):
        await follower.turn()
    faults.arm({})
    following = asyncio.create_task(follower.turn())
    done, _ = await asyncio.wait([following], timeout=1)
    go_on.set()
    await writing
    await following
    assert (done, await shelf.rows()) == (set(), 0), "the row of a writer that missed the fence is still there"


@asynccontextmanager
async def open_transaction(dsn: str, application: str = "psql") -> AsyncIterator[Any]:
    """A session that drew an id and then stands idle."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": application})
    try:
        await connection.execute("BEGIN; SELECT pg_current_xact_id()")
        yield connection
    finally:
        await connection.close()


@pytest.mark.fault(33, "an idle transaction of another database, and of a role that writes no table of ours")
@pytest.mark.attack("leave a transaction open beside a service's database", expected="erasures go on")
async def test_an_idle_transaction_that_cannot_write_here_holds_no_erasure_up(
    shelf: Shelf, postgres_server: PostgresServer
) -> None:
    other, _ = postgres_server.create_system_database(f"other{uuid4().hex[:8]}")
    here = Dsn.parse(shelf.owner_dsn).database
    reader = f"reader_{here}"
    execute(
        str(replace(Dsn.parse(postgres_server.admin_dsn), database=here)),
        f"CREATE ROLE {reader} LOGIN PASSWORD 'reader'",
        f"GRANT CONNECT ON DATABASE {here} TO {reader}",
        f"GRANT USAGE ON SCHEMA public TO {reader}",
        f"GRANT SELECT ON notes TO {reader}",
    )
    reader_dsn = str(replace(Dsn.parse(shelf.owner_dsn), user=reader, password="reader"))
    note = await shelf.written()
    async with open_transaction(other), open_transaction(reader_dsn):
        number = shelf.vault.add("fence", shelf.person, [note.key_id])
        await shelf.follow()
        erasing = asyncio.create_task(shelf.erase(number))
        done, _ = await asyncio.wait([erasing], timeout=20)
    answer = await erasing
    assert done, "a transaction that cannot write here held the erasure up"
    assert (answer["left"], await shelf.rows()) == (0, 0)
    execute(
        str(replace(Dsn.parse(postgres_server.admin_dsn), database=here)),
        f"DROP OWNED BY {reader}",
        f"DROP ROLE {reader}",
    )


@pytest.mark.fault(33, "an idle transaction of the owner, or of an operator who may write")
@pytest.mark.parametrize("who", ["owner", "superuser", "member"])  # a member has its rights after SET ROLE only
async def test_an_idle_transaction_that_can_write_here_is_waited_for_and_named(
    shelf: Shelf, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(writers, "LONGEST_WAIT", 0.2)
    here = Dsn.parse(shelf.owner_dsn)
    admin = str(replace(Dsn.parse(postgres_server.admin_dsn), database=here.database))
    member = f"member_{here.database}"
    execute(
        admin,
        f"CREATE ROLE {member} LOGIN NOINHERIT PASSWORD 'member'",
        f"GRANT CONNECT ON DATABASE {here.database} TO {member}",
        f"GRANT {here.user} TO {member}",
    )
    dsn = {"owner": str(here), "superuser": admin, "member": str(replace(here, user=member, password="member"))}[who]
    role = Dsn.parse(dsn).user
    note = await shelf.written()
    number = shelf.vault.add("fence", shelf.person, [note.key_id])
    await shelf.follow()
    oldest = OldestWriter(shelf.kit.clock)
    async with open_transaction(dsn, "forgotten-shell"):
        with pytest.raises(Unavailable, match=f"role {role}, application forgotten-shell"):
            await shelf.erase(number)
        oldest.note(await read_writers(shelf.kit.db, ["notes"]))
        assert f"role {role}, application forgotten-shell" in (oldest.fact() or "")
    execute(admin, f"DROP OWNED BY {member}", f"DROP ROLE {member}")
    assert (await shelf.erase(number))["left"] == 0
    oldest.note(await read_writers(shelf.kit.db, ["notes"]))
    assert oldest.fact() is None


async def test_a_forgotten_shell_in_a_database_of_ours_ends_by_itself(shelf: Shelf) -> None:
    async with open_transaction(shelf.owner_dsn) as connection:
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == f"{IDLE_SECONDS}s"
    assert writers.LONGEST_WAIT > IDLE_SECONDS


async def test_a_role_that_may_not_look_at_sessions_does_not_begin(
    shelf: Shelf, postgres_server: PostgresServer
) -> None:
    here = str(replace(Dsn.parse(postgres_server.admin_dsn), database=Dsn.parse(shelf.owner_dsn).database))
    await check_writers(shelf.kit.db, ["notes"])
    execute(here, "REVOKE SELECT ON pg_stat_activity FROM PUBLIC")
    try:
        with pytest.raises(Misconfigured, match="pg_stat_activity"):
            await check_writers(shelf.kit.db, ["notes"])
    finally:
        execute(here, "GRANT SELECT ON pg_stat_activity TO PUBLIC")


async def test_what_names_a_fenced_key_is_neither_stored_nor_swept_away_later(shelf: Shelf) -> None:
    note_id, note = await shelf.sealed()
    shelf.vault.add("fence", shelf.person, [note.key_id])
    await shelf.follow()
    with pytest.raises(Fenced):
        await shelf.write(note_id, note)
    assert await shelf.rows() == 0


async def test_rows_go_with_the_list_and_again_with_the_command(shelf: Shelf) -> None:
    """The second sweep is for what came in between: here a row that somebody wrote past the kit."""
    note = await shelf.written()
    number = shelf.vault.add("fence", shelf.person, [note.key_id])
    await shelf.follow()
    assert await shelf.rows() == 0
    past = "INSERT INTO notes VALUES ($1, $2, $3)"
    await shelf.kit.db.fetch(past, uuid4(), shelf.person, note.token)
    answer = await shelf.erase(number)
    assert (answer["erased"], answer["left"], await shelf.rows()) == (1, 0, 0)


async def test_a_row_that_cannot_be_swept_is_named_as_left(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe looks by itself and does not believe the sweep."""

    async def sweeps_nothing(holding: Holding, tx: Tx, erasures: Any) -> dict[UUID, int]:
        return {}

    note = await shelf.written()
    number = shelf.vault.add("fence", shelf.person, [note.key_id])
    monkeypatch.setattr(Holding, "erase", sweeps_nothing)
    await shelf.follow()
    assert (await shelf.erase(number))["left"] == 1


async def test_nobody_answers_before_the_list_is_applied_as_far_as_the_command_says(shelf: Shelf) -> None:
    note = await shelf.written()
    number = shelf.vault.add("fence", shelf.person, [note.key_id])
    with pytest.raises(Unavailable):
        await shelf.erase(number)


# --- the restore gate ---


async def test_behind_the_list_the_gate_is_shut_until_all_is_applied(shelf: Shelf) -> None:
    """The list is longer than this database knows, and the vault is away while the process starts."""
    note, vault = await shelf.written(), shelf.vault
    vault.add("fence", shelf.person, [note.key_id])
    vault.is_away = True
    follower = shelf.follower()
    with pytest.raises(Unavailable):
        await follower.turn()
    assert (shelf.kit.gate.is_open, await shelf.rows()) == (False, 1), "it serves before it knows the list"
    vault.is_away = False
    await follower.turn()
    assert (shelf.kit.gate.is_open, await shelf.rows()) == (True, 0)


@pytest.mark.fault(12, "a service's database is set back under a running process")
async def test_a_database_that_is_set_back_under_a_running_process_shuts_the_gate_and_erases_again(
    shelf: Shelf,
) -> None:
    note, follower = await shelf.written(), shelf.follower()
    shelf.vault.add("fence", shelf.person, [note.key_id])
    await follower.turn()
    for table in ("revoked_keys", "revoked_subjects", "erased_rows"):
        await shelf.kit.db.fetch(f"DELETE FROM kit.{table}")
    await shelf.kit.db.fetch("UPDATE kit.revocation_position SET number = 0, hash = $1", FIRST_HASH)
    await shelf.kit.db.fetch("INSERT INTO notes VALUES ($1, $2, $3)", uuid4(), shelf.person, note.token)
    shelf.vault.is_away = True
    with pytest.raises(Unavailable):
        await follower.turn()
    assert not shelf.kit.gate.is_open
    shelf.vault.is_away = False
    while not shelf.kit.gate.is_open:
        await follower.turn()
    assert await shelf.rows() == 0


@pytest.mark.parametrize("kind", ["shorter", "another"])
async def test_a_list_that_is_not_the_one_applied_keeps_the_gate_shut(shelf: Shelf, kind: str) -> None:
    vault = shelf.vault
    for _ in range(2):
        vault.add("fence", shelf.person, [uuid4()])
    await shelf.follow()
    vault.entries.clear()
    for _ in range(1 if kind == "shorter" else 3):
        vault.add("fence", uuid4(), [uuid4()])
    with pytest.raises(ListDiffers):
        await shelf.follower().turn()
    assert not shelf.kit.gate.is_open


async def test_the_list_is_compared_again_when_the_vault_is_another_incarnation(shelf: Shelf) -> None:
    follower, vault = shelf.follower(), shelf.vault
    vault.add("fence", shelf.person, [uuid4()])
    await follower.turn()
    vault.incarnation = "restored"
    vault.entries.clear()
    vault.add("fence", uuid4(), [uuid4()])
    await follower.turn()  # it finds out
    with pytest.raises(ListDiffers):
        await follower.turn()
