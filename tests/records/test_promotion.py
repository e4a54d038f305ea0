"""Promotion: all files or none, only sound runs of a clean commit, and one line otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest
from suites import HARDWARE, Suite, edit, load, timed

from perfsuite.__main__ import main
from perfsuite.records.baseline import BaselineError, load_baseline
from perfsuite.records.files import write_new
from perfsuite.records.schema import RunError

CLEAN = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
RECORD: list[str | int] = ["benchmarks", 0, "extra_info", "perfsuite"]
CONTAMINATION = [*RECORD, "contamination"]
OTHERS_CPU = [*RECORD, "state", "after", "others_cpu"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_steps.py", timed("test_a"))
    return suite


@pytest.fixture
def make(suite: Suite) -> Callable[..., Path]:
    """Return a function that makes a run, of a clean commit unless it is told otherwise."""
    content = suite.recorded()
    (suite.folder / "runs").mkdir(exist_ok=True)

    def make_run(name: str, commit: str = CLEAN, *, dirty: bool = False) -> Path:
        path = suite.folder / "runs" / name
        path.write_bytes(content)
        edit(path, ["commit_info", "id"], commit)
        edit(path, ["commit_info", "dirty"], dirty)
        edit(path, ["datetime"], name)  # no two runs are alike to the byte
        return path

    return make_run


def promoted(suite: Suite) -> list[Path]:
    return sorted((suite.folder / "baselines").rglob("*.json"))


def test_runs_are_copied_to_their_hardwares_folder(suite: Suite, make: Callable[..., Path]) -> None:
    one, two, other = make("one.json"), make("two.json"), make("other.json")
    edit(other, ["perfsuite", "hardware", "key"], "nvidia-h200-x1-144gib")
    written = suite.promote(one, two, other, allow_dirty=False)
    assert sorted(written) == promoted(suite)
    assert [path.parent.name for path in written] == [HARDWARE, HARDWARE, "nvidia-h200-x1-144gib"]
    assert [path.read_bytes() for path in written] == [p.read_bytes() for p in (one, two, other)]
    assert all(CLEAN[:12] in path.name for path in written)
    assert len(load_baseline(suite.folder, HARDWARE).runs) == 2


@pytest.mark.parametrize("together", [True, False], ids=["together", "one after the other"])
def test_runs_that_kept_the_device_busy_by_other_batches_are_refused(
    suite: Suite, make: Callable[..., Path], together: bool
) -> None:
    """Compared with both, no night would be measured as they were."""
    runs = [make("one.json"), make("two.json")]
    for path, doublings in zip(runs, (2, 3), strict=True):
        edit(path, [*RECORD, "config", "doublings"], doublings)
    if not together:
        suite.promote(runs.pop(0))
    before = promoted(suite)
    with pytest.raises(BaselineError, match=r"batch x8, and another run one x4: promote one run"):
        suite.promote(*runs)
    assert promoted(suite) == before


def test_promoting_again_changes_nothing(suite: Suite, make: Callable[..., Path]) -> None:
    one, two = make("one.json"), make("two.json")
    first = suite.promote(one)
    assert suite.promote(one) == first
    assert suite.promote(one, one, two)[0] == first[0]
    assert len(promoted(suite)) == 2
    # A file that is part of the baseline may be named itself.
    assert suite.promote(*first) == first
    assert len(promoted(suite)) == 2
    # What is not named is removed, also of the same commit.
    assert suite.promote(*first, replace=True) == first
    assert promoted(suite) == first


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        (lambda path: path.write_bytes(b"{"), RunError, "not valid JSON"),
        (lambda path: path.unlink(), RunError, "cannot be read: No such file"),
        (
            lambda path: edit(path, ["perfsuite", "items", "test_steps.py::test_a"], "failed"),
            BaselineError,
            r"refused: test_steps\.py::test_a failed",
        ),
        (
            lambda path: edit(path, CONTAMINATION, ["other processes used 50% of the cores"]),
            BaselineError,
            r"test_a was contaminated: other processes used 50% of the cores: run it again on a",
        ),
        (
            lambda path: edit(path, OTHERS_CPU, 0.5),
            BaselineError,
            "test_a .* other processes used 50% of the cores; run it again on .* or --allow-busy",
        ),
        (
            lambda path: edit(path, ["commit_info", "id"], OTHER),
            BaselineError,
            r"runs of several commits \(0123456789ab, fedcba987654\)",
        ),
        (
            lambda path: edit(path, ["commit_info", "dirty"], True),
            BaselineError,
            "its tree had uncommitted changes; commit and run again, or --allow-dirty",
        ),
    ],
    ids=["cut-short", "gone", "failed", "contaminated", "busy", "other-commit", "dirty"],
)
def test_one_that_is_refused_keeps_all_out(
    suite: Suite,
    make: Callable[..., Path],
    *,
    damage: Callable[[Path], None],
    error: type[Exception],
    reason: str,
    position: int,
) -> None:
    runs = [make(f"{number}.json") for number in range(3)]
    damage(runs[position])
    with pytest.raises(error, match=reason):
        suite.promote(*runs, allow_dirty=False)
    assert not (suite.folder / "baselines").exists()


def test_a_machine_that_is_never_quiet_may_have_a_baseline(
    suite: Suite, make: Callable[..., Path]
) -> None:
    run = make("run.json")
    edit(run, OTHERS_CPU, 0.5)
    assert suite.promote(run, allow_busy=True) == promoted(suite)


@pytest.mark.parametrize(
    "key",
    ["", "../elsewhere", "a/b", "/elsewhere", ".", "a\0b"],
    ids=["empty", "above", "below", "absolute", "itself", "nul"],
)
def test_a_hardware_that_names_no_folder(suite: Suite, make: Callable[..., Path], key: str) -> None:
    """A run may come from anyone's machine; it must not choose where it is written."""
    run = make("run.json")
    edit(run, ["perfsuite", "hardware", "key"], key)
    before = sorted(suite.folder.rglob("*"))
    with pytest.raises((RunError, BaselineError), match="hardware"):
        suite.promote(run)
    assert sorted(suite.folder.rglob("*")) == before


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_disk_that_fills_keeps_all_out(
    suite: Suite, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    runs = [make(f"{number}.json") for number in range(3)]
    written: list[Path] = []

    def fill(path: Path, content: bytes) -> None:
        if len(written) == position:
            raise OSError(28, "No space left on device")
        write_new(path, content)
        written.append(path)

    monkeypatch.setattr("perfsuite.records.promotion.write_new", fill)
    with pytest.raises(OSError, match="No space left"):
        suite.promote(*runs)
    assert promoted(suite) == []


@pytest.mark.parametrize(
    ("commit", "dirty", "state"),
    [
        (CLEAN, True, "had uncommitted changes"),
        ("unversioned", False, "is of commit 'unversioned'"),
        ("unknown", False, "is of commit 'unknown'"),
        ("", False, "is of commit ''"),
    ],
    ids=["dirty", "unversioned", "unknown", "empty"],
)
def test_a_run_of_no_commit(
    suite: Suite, make: Callable[..., Path], commit: str, dirty: bool, state: str
) -> None:
    run = make("run.json", commit, dirty=dirty)
    with pytest.raises(BaselineError, match=f"its tree {state}; commit and run again, or"):
        suite.promote(run, allow_dirty=False)
    assert promoted(suite) == []
    assert suite.promote(run, allow_dirty=True) == promoted(suite)


def test_another_commit_replaces_only_if_told_to(suite: Suite, make: Callable[..., Path]) -> None:
    old, new = suite.promote(make("one.json"), make("two.json")), make("three.json", OTHER)
    elsewhere = suite.folder / "baselines" / "another" / "kept.json"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(old[0].read_bytes())
    with pytest.raises(
        BaselineError, match=r"is of commit 0123456789ab.*--replace removes the old ones"
    ):
        suite.promote(new)
    assert promoted(suite) == sorted([elsewhere, *old])
    written = suite.promote(new, replace=True)
    assert promoted(suite) == sorted([elsewhere, *written])
    (run,) = load_baseline(suite.folder, HARDWARE).runs
    assert run.commit == OTHER


def test_replacing_by_runs_that_are_refused_removes_nothing(
    suite: Suite, make: Callable[..., Path]
) -> None:
    old = suite.promote(make("one.json"))
    bad = make("two.json", OTHER)
    edit(bad, ["perfsuite", "complete"], False)
    with pytest.raises(BaselineError, match="did not run to its end"):
        suite.promote(make("three.json", OTHER), bad, replace=True)
    assert promoted(suite) == old


def test_a_damaged_baseline_can_be_replaced(suite: Suite, make: Callable[..., Path]) -> None:
    (old,) = suite.promote(make("one.json"))
    old.write_bytes(b"{")
    with pytest.raises(RunError, match="not valid JSON"):
        suite.promote(make("two.json"))
    assert suite.promote(make("two.json"), replace=True) == promoted(suite)


def test_the_path_from_a_session_to_its_baseline(suite: Suite) -> None:
    """As it is done by hand: commit, run, promote, compare."""
    suite.commit()
    run = suite.record()
    assert main(["promote", str(run), f"--suite={suite.folder}"]) == 0
    commit = load(run)["commit_info"]["id"]
    result = suite.compare()
    assert result.ret == 0
    assert f"against 1 promoted run of {commit[:12]} in " in result.stdout.str()

    suite.write("test_steps.py", timed("test_a") + "\n# changed\n")
    changed = suite.record(name="changed.json")
    assert main(["promote", str(changed), f"--suite={suite.folder}"]) == 1
    suite.commit()
    suite.record(name="new.json")
    new = str(suite.folder / "runs" / "new.json")
    assert main(["promote", new, f"--suite={suite.folder}"]) == 1
    assert main(["promote", new, f"--suite={suite.folder}", "--replace"]) == 0
    assert len(promoted(suite)) == 1


def test_the_command_says_what_it_promoted(
    suite: Suite, make: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    runs = [str(make("one.json")), str(make("two.json"))]
    assert main(["promote", *runs, "--suite", str(suite.folder)]) == 0
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == [f"promoted {path}" for path in promoted(suite)]
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["gone.json", "--suite=."], "gone.json: cannot be read: No such file or directory"),
        (["runs", "--suite=."], "runs: cannot be read: Is a directory"),
        (["runs/run.json"], "benchmarks: not a suite: it holds neither thresholds.toml nor"),
        (["runs/run.json", "--suite=runs"], "runs: not a suite: it holds neither thresholds"),
        (
            ["runs/run.json", "--suite=gone"],
            "gone: not a suite: it holds neither thresholds.toml nor",
        ),
        (["runs/run.json", "--suite=."], "commit and run again, or --allow-dirty"),
    ],
    ids=["no-file", "a-folder", "no-default-suite", "no-suite", "no-folder", "dirty"],
)
def test_the_command_fails_with_one_line(
    suite: Suite,
    make: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    make("run.json", dirty=True)
    capsys.readouterr()
    assert main(["promote", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("perfsuite: ")
    assert reason in line
    assert promoted(suite) == []
