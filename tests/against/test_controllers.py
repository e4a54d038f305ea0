"""What the coordinator makes of servers and workers that answer, hang, end, or talk nonsense."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import stub_server
from msgspec import structs

from perfsuite.against import controllers
from perfsuite.against.controllers import ServerController, SideError
from perfsuite.against.messages import Done, Setup
from perfsuite.against.tries import in_a_fresh_process
from perfsuite.judging.fitting import Attempt
from perfsuite.training.batches import TrainingError

SETUP = Setup(
    side="after",
    top="/",
    checkout=None,
    suite="",
    suite_folder="/",
    working_folder_first=False,
    perfsuite=None,
    arguments=[],
    ranks=1,
)
Serve = Callable[..., ServerController]
NOTHING: Mapping[str, str] = {}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(controllers, "_BOOTSTRAP", stub_server.PLACE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started: list[ServerController] = []

    def serve(
        python: str = sys.executable,
        environment: Mapping[str, str] = NOTHING,
        ranks: int = 1,
        **says: object,
    ) -> ServerController:
        monkeypatch.setenv("STUB", json.dumps({"items": {}, **says}))
        log = tmp_path / "log"
        started.append(
            ServerController(
                structs.replace(SETUP, ranks=ranks),
                python=python,
                folder=tmp_path,
                log=log,
                environment=environment,
            )
        )
        return started[-1]

    yield serve
    for server in started:
        server.__exit__()


def quiet(done: int, of: int) -> None:
    pass


def test_a_sides_environment_is_laid_over_that_of_the_session(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("WORLD_SIZE", "2")  # of this session's ranks
    server = serve(environment={"CUDA_VISIBLE_DEVICES": ""})
    server.collected()
    environment = psutil.Process(server._process.pid).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["PATH"] == os.environ["PATH"]
    assert "WORLD_SIZE" not in environment


def test_a_worker_runs_a_benchmark_and_shows_progress(serve: Serve) -> None:
    server = serve(items={"a": ["slow"]})
    assert server.collected().items == {"a": ["slow"]}
    shown = []
    with server.start("a", 0, lambda *progress: shown.append(progress)) as worker:
        answer = worker.go()
    assert isinstance(answer, Done)
    assert answer.record["metrics"] == stub_server.FIGURE
    assert shown == [(1, 1)]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("exits", "ended with exit code 3"),
        ("strange", "sent an answer that cannot be read: Invalid value 'unheard-of'"),
        ("early", "answered Ended instead of Ready"),
    ],
)
def test_what_a_worker_should_not_do_is_said_in_one_line(serve: Serve, key: str, why: str) -> None:
    server = serve()
    server.collected()
    with server.start(key, 0, quiet) as worker, pytest.raises(SideError) as caught:
        worker.go()
    assert str(caught.value).startswith(f"after: {why}")
    assert len(str(caught.value).splitlines()) == 1
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_that_hangs_is_ended_and_the_server_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    server.collected()
    with server.start("hung", 0, quiet) as worker:
        monkeypatch.setattr(controllers, "_TIMEOUT_S", 0.2)
        with pytest.raises(SideError, match=r"gave no answer for 0\.2 s"):
            worker.go()
        assert psutil.pid_exists(worker.pid)
        monkeypatch.undo()
    assert not psutil.pid_exists(worker.pid)
    with server.start("a", 1, quiet) as worker:
        assert isinstance(worker.go(), Done)


def test_a_server_that_hangs_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers, "_TIMEOUT_S", 0.2)
    with pytest.raises(SideError, match=r"gave no answer for 0\.2 s"):
        serve(hangs=True).collected()


@pytest.mark.parametrize(
    ("prints", "last"),
    [
        ("one\nE   ValueError: broken\nat the end", "ValueError: broken"),
        ("one\nERROR: usage\n", "ERROR: usage"),
    ],
    ids=["raised", "printed"],
)
def test_how_a_server_ended_is_said_by_what_it_printed_last(
    serve: Serve, prints: str, last: str
) -> None:
    with pytest.raises(SideError) as caught:
        serve(prints=prints).collected()
    assert str(caught.value) == f"after: its server ended with exit code 1, saying: {last}"


@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("/no/python", "/no/python cannot be started: No such file or directory"),
        ("/bin/false", "its server ended with exit code 1, saying: nothing"),
    ],
)
def test_an_interpreter_that_is_none_is_told(serve: Serve, python: str, why: str) -> None:
    with pytest.raises(SideError) as caught:
        serve(python).collected()
    assert caught.value.reason == why


def test_the_end_of_a_server_ends_its_workers(serve: Serve) -> None:
    with serve() as server:
        server.collected()
        worker = server.start("hung", 0, quiet)
    until_s = time.monotonic() + 60
    while psutil.pid_exists(worker.pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not psutil.pid_exists(worker.pid)
    worker.__exit__()


def tried(serve: Serve, key: str) -> object:
    server = serve()
    server.collected()
    attempt = Attempt(precision="fp32", samples=8, limit_bytes=None)
    return in_a_fresh_process(server, key, attempt)


def test_a_try_that_the_system_kills_had_not_enough_memory(serve: Serve) -> None:
    found: Any = tried(serve, "ended-by SIGKILL")
    assert not found.fits
    assert found.why_not.startswith("ended with SIGKILL")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("ended-by SIGSEGV", "ended with SIGSEGV"),
        ("ended-by SIGABRT", "ended with SIGABRT"),
        ("server ended-by SIGKILL", "its server ended with SIGKILL"),
        ("exits", "ended with exit code 3"),
    ],
)
def test_what_else_ends_a_try_is_an_error_in_one_line(serve: Serve, key: str, why: str) -> None:
    with pytest.raises(TrainingError) as raised:
        tried(serve, key)
    assert str(raised.value).startswith(f"8 samples in fp32 could not be tried: {why}")
    assert "\n" not in str(raised.value)


def group(leader: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def test_all_ranks_of_a_worker_run_and_end(serve: Serve) -> None:
    server = serve(ranks=2)
    server.collected()
    with server.start("a", 0, quiet) as worker:
        assert isinstance(worker.go(), Done)
    assert group(worker.pid) == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("raises waits", "rank 1 of 2: ValueError: broken"),
        ("killed waits", "rank 1 of 2 ended with SIGKILL, as a process does that takes more"),
        ("killed blames", "rank 1 of 2 ended with SIGKILL, as a process does that takes more"),
        ("hangs exits", "rank 0 of 2 ended with exit code 3"),
    ],
)
def test_the_rank_that_failed_is_named_and_the_others_end_with_it(
    serve: Serve, key: str, why: str
) -> None:
    server = serve(ranks=2)
    server.collected()
    with server.start(key, 0, quiet) as worker, pytest.raises(SideError) as caught:
        worker.go()
    assert caught.value.reason.startswith(why)
    assert caught.value.killed == ("SIGKILL" in why)
    assert group(worker.pid) == []


def test_a_rank_that_hangs_ends_with_all_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(ranks=3)
    server.collected()
    with server.start("hangs waits", 0, quiet) as worker:
        monkeypatch.setattr(controllers, "_TIMEOUT_S", 0.2)
        with pytest.raises(SideError, match=r"gave no answer for 0\.2 s"):
            worker.go()
        monkeypatch.undo()
        assert len(group(worker.pid)) == 3
    assert group(worker.pid) == []


def test_ranks_end_where_the_coordinator_is_gone(serve: Serve) -> None:
    server = serve(ranks=2)
    server.collected()
    worker = server.start("hangs waits", 0, quiet)
    server._line.close()  # as if it had been killed
    until_s = time.monotonic() + 60
    while group(worker.pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert group(worker.pid) == []
    worker.__exit__()
