"""The embedded server: real processes, killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from pgflow.embedded import BinariesMissing, EmbeddedError, Postgres
from pgflow.embedded.binaries import CHOICE
from tests.waiting import until_blocking

OWNER = textwrap.dedent(
    """
    import sys, time
    from pgflow.embedded import Postgres
    server = Postgres(sys.argv[1] if len(sys.argv) > 1 else None).start()
    print(server.dsn, flush=True)
    time.sleep(600)
    """
)


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def owner(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_settings_are_passed_and_two_servers_do_not_collide() -> None:
    with Postgres(settings={"work_mem": "7MB"}) as one, Postgres() as other:
        assert value(one.dsn, "SHOW work_mem") == "7MB"
        assert value(other.dsn, "SHOW work_mem") != "7MB"
        assert one.dsn != other.dsn
        assert str(value(one.dsn, "SHOW server_encoding")) == "UTF8"
    with pytest.raises(EmbeddedError, match="does not run"):
        _ = one.dsn


def test_a_directory_used_twice_keeps_its_data(place: Path) -> None:
    with Postgres(place) as server, psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    with Postgres(place) as server:
        assert value(server.dsn, "SELECT n FROM kept") == 42


def test_the_server_ends_when_its_owner_is_killed_and_recovers_for_the_next(place: Path) -> None:
    process, dsn = owner(str(place))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server = int((place / "data" / "postmaster.pid").read_text().split()[0])
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Postgres(place) as mine:
        assert value(mine.dsn, "SELECT n FROM kept") == 42
    assert gone(server)


def test_the_server_ends_when_even_its_guard_is_killed(place: Path) -> None:
    process, _ = owner(str(place))
    server = int((place / "data" / "postmaster.pid").read_text().split()[0])
    guard = int(Path(f"/proc/{server}/stat").read_text().split()[3]) if sys.platform == "linux" else 0
    if not guard:
        pytest.skip("needs /proc")
    os.kill(guard, signal.SIGKILL)
    until_blocking(lambda: gone(server))
    process.kill()
    process.wait()


def test_two_owners_of_one_directory(place: Path) -> None:
    with Postgres(place), pytest.raises(EmbeddedError, match="in use by the server of process"):
        Postgres(place).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges only when it has them")
def test_as_root_the_server_runs_unprivileged_and_refuses_what_it_cannot_reach(tmp_path: Path) -> None:
    with Postgres() as server:
        directory = Path(str(value(server.dsn, "SHOW data_directory")))
        pid = int((directory / "postmaster.pid").read_text().split()[0])
        assert Path(f"/proc/{pid}").stat().st_uid != 0
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match="cannot enter"):
        Postgres(closed / "data").start()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming an ordinary user takes root")
def test_an_ordinary_user_just_runs_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this checkout is: what that user executes stands where everybody can read it."""
    import pwd

    from pgflow.embedded import binaries, server

    monkeypatch.setattr(server, "GUARD", Path(shutil.copy(server.GUARD, place / "guard.py")))
    server.GUARD.chmod(0o644)
    user, programs = pwd.getpwnam("nobody"), binaries.reachable(binaries.find())
    python = next((path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists()), sys.executable)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # What this process has imported is usable without the right to read it again; its interpreter may not be.
        status = 1
        try:
            os.chdir("/")
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            sys.executable = python
            with Postgres(binaries=programs) as postgres:
                os.write(write, str(value(postgres.dsn, "SELECT 41 + 1")).encode())
            status = 0
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(status)
    os.close(write)
    told = os.read(read, 65536)
    os.waitpid(child, 0)
    assert told == b"42"


def test_other_binaries(pg15_dsn: str) -> None:
    assert str(value(pg15_dsn, "SHOW server_version")).startswith("15.")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's server runs as that user")
def test_binaries_below_a_closed_directory_are_copied_once(tmp_path: Path) -> None:
    """As those of a virtual environment in a home that only its owner may enter."""
    import shutil

    from pgflow.embedded import binaries

    source = binaries.find().parent.parent
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    for part in (source, source.with_name(source.name + ".libs")):
        if part.is_dir():
            shutil.copytree(part, closed / part.name, symlinks=True)
    hidden = closed / source.name / "pginstall" / "bin"
    found = binaries.reachable(hidden)
    assert found != hidden and found == binaries.reachable(hidden)
    with Postgres(binaries=hidden) as server:
        assert value(server.dsn, "SELECT 1") == 1


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        Postgres(settings={"no_such_setting": "1"}).start()


def test_missing_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BinariesMissing, match="bin directory of a PostgreSQL"):
        Postgres(binaries=tmp_path).start()
    monkeypatch.setenv(CHOICE, str(tmp_path))
    with pytest.raises(BinariesMissing, match="no initdb"):
        Postgres().start()
