"""A study in a real PostgreSQL, shared by several processes, one of which is killed."""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytest.importorskip("psycopg")


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian keeps those of a server out of the PATH."""
    found = shutil.which("initdb")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    folders += [Path(found).resolve().parent] if found else []
    return next(
        (folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None
    )


def unprivileged() -> list[str]:
    """Return how to run a command as somebody PostgreSQL accepts: it refuses root."""
    if os.getuid() != 0:
        return []
    known = {user.pw_name for user in pwd.getpwall()}
    return ["runuser", "-u", "postgres" if "postgres" in known else "nobody", "--"]


pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL's initdb is not installed"),
]

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("search_process", HERE / "test_search_resume.py")
assert _spec is not None
assert _spec.loader is not None
search_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(search_process)


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """Run PostgreSQL on a Unix socket alone, in a folder of its own; yield the socket's folder."""
    home, tools, become = Path(tempfile.mkdtemp(prefix="flyweight-pg-")), programs(), unprivileged()
    assert tools is not None
    if become:
        shutil.chown(home, become[2])
    home.chmod(0o755)
    data = home / "data"

    def run(program: str, *arguments: str) -> None:
        command = [*become, str(tools / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, timeout=120, cwd=home, stdout=subprocess.DEVNULL)

    run("initdb", "-A", "trust", "-U", "flyweight", "--no-sync", "-E", "UTF8")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    run("pg_ctl", "start", "-w", "-l", str(home / "log"), "-o", options)
    try:
        yield home
    finally:
        run("pg_ctl", "stop", "-w", "-m", "fast")  # by the number in its own file
        shutil.rmtree(home)


@pytest.fixture
def url(server: Path, request: pytest.FixtureRequest) -> str:
    import psycopg
    from psycopg import sql

    name = f"study_{abs(hash(request.node.name)) % 10**8}"
    with psycopg.connect(
        host=str(server), user="flyweight", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return f"postgresql://flyweight@/{name}?host={server}"


def test_two_processes_share_the_trials(url: str, tmp_path: Path) -> None:
    first = search_process.start(tmp_path, url, stay=3)
    search_process.await_line(first, "trial 3")
    second = search_process.start(tmp_path, url)
    search_process.await_line(second, "trial 3")  # both have begun some
    assert first.stdin is not None
    first.stdin.close()
    first.stdin = None
    ended = [process.communicate(timeout=120)[0] for process in (first, second)]
    documents = [json.loads(out.strip().splitlines()[-1]) for out in ended]
    assert documents[0] == documents[1]
    assert len(documents[0]) >= search_process.TRIALS
    assert {pid for _, _, pid in documents[0]} == {first.pid, second.pid}


def test_the_trial_of_a_killed_worker_is_done_by_another(url: str, tmp_path: Path) -> None:
    lost = search_process.start(tmp_path, url, stay=2)
    search_process.await_line(lost, "trial 2")
    lost.send_signal(signal.SIGKILL)
    lost.communicate(timeout=60)
    trials = search_process.result(search_process.start(tmp_path, url))
    assert len(trials) >= search_process.TRIALS


def test_a_study_of_another_model_is_refused(url: str, tmp_path: Path) -> None:
    from flyweight.compressor.search.extra import SearchError
    from flyweight.compressor.search.sampler_settings import SamplerSettings
    from flyweight.compressor.search.study import Study, StudyPlace

    Study(StudyPlace(tmp_path, url), {"model": "a"}, (), SamplerSettings()).close()
    with pytest.raises(SearchError, match="was made for another model"):
        Study(StudyPlace(tmp_path, url), {"model": "b"}, (), SamplerSettings())
