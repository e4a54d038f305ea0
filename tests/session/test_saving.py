"""Runs are written whole or not at all, never over another file, and also when interrupted."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, local
from typing import NoReturn

import pytest
from suites import HEAD, Suite, load, timed, usage_error

from perfsuite.records.baseline import BaselineError
from perfsuite.records.files import next_free, save_numbered, write_new
from perfsuite.records.schema import encode, read_run


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "run.json"
    write_new(path, b"content")
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["run.json"]
    # A temporary file is its owner's alone; a run is to be read by others too.
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError):
        write_new(path, b"after")
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["run.json"]


def test_a_dangling_link_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.symlink_to(tmp_path / "nowhere.json")
    with pytest.raises(FileExistsError):
        write_new(path, b"content")
    assert names(tmp_path) == ["run.json"]


@pytest.mark.parametrize("call", ["fsync", "link", "fdopen"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(type(error)):
            write_new(tmp_path / "run.json", b"content")
    assert names(tmp_path) == []


def test_a_file_gets_its_name_once_its_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "run.json", []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        seen.append((path.exists(), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_new(path, b"content")
    assert seen == [(False, 7)]


def test_numbers_continue_from_the_highest(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    assert save_numbered(folder, "a", b"") == folder / "0001_a.json"
    (folder / "0041_other.json").touch()
    (folder / "notes.txt").touch()
    (folder / "12_not_ours.json").touch()
    assert save_numbered(folder, "a", b"").name == "0042_a.json"
    (folder / "9999_a.json").touch()
    assert save_numbered(folder, "a", b"").name == "10000_a.json"
    assert save_numbered(folder, "a", b"").name == "10001_a.json"


def test_eight_runs_saved_at_once_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the file system is between them, as between processes."""
    writers, rounds = 8, 5
    together, taken = Barrier(writers), []
    attempt = local()
    link = os.link

    def counted(source: Path, target: Path) -> None:
        if attempt.is_first:  # all have chosen a number before the first of them takes it
            attempt.is_first = False
            together.wait(timeout=60)
        try:
            link(source, target)
        except FileExistsError:
            taken.append(target)
            raise

    monkeypatch.setattr(os, "link", counted)

    def save(writer: int) -> list[tuple[Path, bytes]]:
        saved = []
        for number in range(rounds):
            content = f"{writer} {number} ".encode() * 10_000
            attempt.is_first = True
            saved.append((save_numbered(tmp_path, "run", content), content))
        return saved

    with ThreadPoolExecutor(writers) as pool:
        saved = [pair for pairs in pool.map(save, range(writers)) for pair in pairs]
    assert len(taken) >= writers - 1
    assert names(tmp_path) == [f"{number:04}_run.json" for number in range(1, 41)]
    assert len({path for path, _ in saved}) == 40
    assert all(path.read_bytes() == content for path, content in saved)


def test_the_next_free_name_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert next_free(path) == path
    path.touch()
    (tmp_path / "run-2.json").touch()
    assert next_free(path) == tmp_path / "run-3.json"


def test_json_ends_with_a_line_and_has_no_nan() -> None:
    assert encode({"a": [float("nan"), 1.5]}) == b'{\n  "a": [\n    null,\n    1.5\n  ]\n}\n'


@pytest.mark.parametrize("kind", ["file", "folder", "below-a-file"])
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_measured(
    suite: Suite, kind: str
) -> None:
    """Before anything is measured: it would be lost at the end."""
    path = suite.folder / "run.json"
    if kind == "file":
        path.write_text("before", encoding="utf-8")
    elif kind == "folder":
        path.mkdir()
    else:
        suite.write("file", "before")
        path = suite.folder / "file" / "run.json"
    suite.write("test_steps.py", f"{timed('test_a')}    open('measured', 'x')\n")
    line = usage_error(suite.run(f"--benchmark-json={path}"))
    assert line.startswith("ERROR: --benchmark-json: ")
    assert str(path if kind != "below-a-file" else path.parent) in line
    assert not (suite.folder / "measured").exists()
    if kind == "file":
        assert path.read_text(encoding="utf-8") == "before"


def test_a_file_that_appears_during_the_session_is_not_overwritten(suite: Suite) -> None:
    line = "open('run.json', 'x').write('before')"
    suite.write("test_steps.py", f"{timed('test_a')}    {line}\n")
    result = suite.run("--benchmark-json=run.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["saved run-2.json (run.json was written by * meanwhile)"])
    assert (suite.folder / "run.json").read_text(encoding="utf-8") == "before"
    assert read_run(suite.folder / "run-2.json").complete


@pytest.mark.parametrize("option", ["--benchmark-save=x", "--benchmark-json=run.json"])
def test_a_full_disk_fails_the_session(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    suite.write("test_steps.py", timed("test_a"))
    monkeypatch.setattr(os, "fsync", full)
    result = suite.run(option)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the run could not be saved: *No space left on device*"])
    assert suite.saved() == []
    assert not list(suite.folder.glob("*.json"))


def test_saved_runs_are_numbered(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    for _ in range(2):
        result = suite.run("--benchmark-save=nightly", "--benchmark-json=run.json")
        assert result.ret == 0
        (suite.folder / "run.json").rename(suite.folder / "last.json")
    assert [path.name for path in suite.saved()] == ["0001_nightly.json", "0002_nightly.json"]
    assert suite.saved()[1].read_bytes() == (suite.folder / "last.json").read_bytes()
    result.stdout.fnmatch_lines(["saved run.json", "saved *0002_nightly.json"])


def test_runs_are_saved_where_benchmark_storage_says(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    assert suite.run("--benchmark-autosave", "--benchmark-storage=kept").ret == 0
    (saved,) = (suite.folder / "kept").rglob("*.json")
    assert saved.name.startswith("0001_")
    assert read_run(saved).complete
    assert suite.saved() == []


def test_a_session_that_measured_nothing_saves_nothing(suite: Suite) -> None:
    suite.write("test_steps.py", "def test_a(perf):\n    assert False\n")
    result = suite.run("--benchmark-save=x", "--benchmark-json=run.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["nothing was saved: no benchmark was measured"])
    assert suite.saved() == []
    assert not (suite.folder / "run.json").exists()


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("raise KeyboardInterrupt", pytest.ExitCode.INTERRUPTED),
        ("import pytest; pytest.exit('enough', returncode=7)", 7),
    ],
    ids=["ctrl-c", "pytest-exit"],
)
def test_an_interrupted_session_is_saved_but_not_promoted(
    suite: Suite, ending: str, status: int
) -> None:
    last = "\n\ndef test_c(perf):\n    measure(perf)\n"
    suite.write("test_steps.py", f"{timed('test_a', 'test_b')}    {ending}\n{last}")
    result = suite.run("--benchmark-json=run.json")
    assert result.ret == status
    run = read_run(suite.folder / "run.json")
    assert run.complete is False
    assert list(run.benchmarks) == ["test_steps.py::test_a"]
    assert run.items == {
        "test_steps.py::test_a": "passed",
        "test_steps.py::test_b": "not run",
        "test_steps.py::test_c": "not run",
    }
    assert load(run.path)["perfsuite"]["complete"] is False
    with pytest.raises(BaselineError, match="refused: the session did not run to its end"):
        suite.promote(run.path)


def test_a_session_that_stops_at_the_first_failure_is_incomplete(suite: Suite) -> None:
    suite.write(
        "test_steps.py",
        f"{HEAD}\ndef test_a(perf):\n    measure(perf)\n\n"
        "def test_b(perf):\n    assert False\n\ndef test_c(perf):\n    measure(perf)\n",
    )
    assert suite.run("-x", "--benchmark-json=run.json").ret == 1
    run = read_run(suite.folder / "run.json")
    assert run.complete is False
    assert run.items["test_steps.py::test_c"] == "not run"
