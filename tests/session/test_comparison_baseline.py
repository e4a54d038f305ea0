"""Baselines by which pytest-benchmark's own comparison lets a regression through.

Each test first shows pytest-benchmark alone, so that we learn of it when it changes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suites import HARDWARE, Suite, edit, load, plain, timed, usage_error

from perfsuite.records.baseline import BaselineError

JUDGED = ("--benchmark-compare", "--benchmark-compare-fail=mean:5%")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.fixture
def judged(suite: Suite) -> Suite:
    """Return a suite with a saved run of pytest-benchmark and a baseline of ours."""
    suite.write("test_steps.py", plain("test_a"))
    assert suite.run_plain("--benchmark-save=before").ret == 0
    suite.write("test_steps.py", timed("test_a"))
    suite.baseline()
    return suite


def as_plain(suite: Suite) -> Suite:
    suite.write("test_steps.py", plain("test_a"))
    return suite


def as_timed(suite: Suite) -> Suite:
    suite.write("test_steps.py", timed("test_a"))
    return suite


def test_the_baseline_is_found_from_any_folder(
    judged: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged.step_s(0.02)
    storage, file = judged.folder / ".benchmarks", judged.folder / "test_steps.py"
    elsewhere = (f"--rootdir={judged.folder.parent}", f"--benchmark-storage={storage}")
    assert as_plain(judged).run_plain(*JUDGED, *elsewhere).ret == 0

    as_timed(judged)
    assert judged.compare(f"--rootdir={judged.folder.parent}").ret == 1
    for cwd in (judged.folder.parent, tmp_path):
        monkeypatch.chdir(cwd)
        result = judged.compare(file)
        result.assert_outcomes(failed=1)
        assert f"against 1 promoted run of unversioned in {judged.folder}" in result.stdout.str()
        judged.compare(judged.folder).assert_outcomes(failed=1)
    judged.step_s(0.01)
    assert judged.compare(file).ret == 0


def test_a_baseline_of_other_hardware_is_refused(judged: Suite) -> None:
    (saved,) = judged.saved()
    edit(saved, ["machine_info", "node"], "another")
    theirs = as_plain(judged).run_plain(*JUDGED)
    assert theirs.ret == 0
    assert "Benchmark machine_info is different" in theirs.stderr.str()

    as_timed(judged)
    (promoted,) = (judged.folder / "baselines" / HARDWARE).glob("*.json")
    edit(promoted, ["perfsuite", "hardware", "key"], "nvidia-h100-x1-80gib")
    line = usage_error(judged.compare())
    assert f"{promoted}: was measured on nvidia-h100-x1-80gib, not {HARDWARE}" in line

    promoted.parent.rename(promoted.parent.with_name("nvidia-h100-x1-80gib"))
    line = usage_error(judged.compare())
    assert "no promoted run of this hardware (there are runs of nvidia-h100-x1-80gib)" in line
    assert "perfsuite promote" in line


def test_a_baseline_of_several_commits_is_refused(judged: Suite) -> None:
    (promoted,) = (judged.folder / "baselines" / HARDWARE).glob("*.json")
    other = promoted.with_name("other.json")
    other.write_bytes(promoted.read_bytes())
    edit(other, ["commit_info", "id"], "abcdef0123456789")
    line = usage_error(judged.compare())
    assert "holds runs of several commits (abcdef012345, unversioned); keep one's" in line


def test_a_regressed_run_does_not_become_the_baseline(judged: Suite) -> None:
    """Neither by being the last that was saved, nor by being promoted."""
    judged.step_s(0.02)
    as_plain(judged)
    assert judged.run_plain(*JUDGED, "--benchmark-autosave").ret != 0
    assert judged.run_plain(*JUDGED, "--benchmark-autosave").ret == 0

    as_timed(judged)
    before = len(judged.saved())
    for attempt in (1, 2, 3):
        assert judged.compare("--benchmark-autosave").ret == 1
        assert len(judged.saved()) == before + attempt
    with pytest.raises(BaselineError, match=r"refused: test_steps\.py::test_a failed"):
        judged.promote(judged.saved()[-1])


def test_a_benchmark_that_failed_leaves_no_figures(suite: Suite) -> None:
    """A test that measures and then finds its result to be wrong."""
    suite.write("test_steps.py", plain("test_a", "test_b") + "    assert False\n")
    assert suite.run_plain("--benchmark-json=theirs.json").ret == 1
    theirs = load(suite.folder / "theirs.json")["benchmarks"]
    assert [entry["name"] for entry in theirs] == ["test_a", "test_b"]

    suite.write("test_steps.py", timed("test_a", "test_b") + "    assert False\n")
    assert suite.run("--benchmark-json=ours.json").ret == 1
    ours = load(suite.folder / "ours.json")
    assert [entry["name"] for entry in ours["benchmarks"]] == ["test_a"]
    assert ours["perfsuite"]["items"] == {
        "test_steps.py::test_a": "passed",
        "test_steps.py::test_b": "failed",
    }
    with pytest.raises(BaselineError, match=r"refused: test_steps\.py::test_b failed"):
        suite.promote(suite.folder / "ours.json")


FAILING_TEARDOWN = """
import pytest

@pytest.fixture(autouse=True)
def leaves_something_behind():
    yield
    raise OSError("no space left")
"""


@pytest.mark.parametrize(
    ("conftest", "line", "named"),
    [
        ("", "perf.gate(missing('finite', 'no loss', 'train'))", r"test_a failed \(and 1 more\)"),
        ("", "import pytest; pytest.skip('not today')", "test_a skipped"),
        ("", "import pytest; pytest.xfail('known')", "test_a skipped"),
        (FAILING_TEARDOWN, "pass", "test_a error"),
    ],
    ids=["failed-gate", "skipped", "expected-to-fail", "teardown"],
)
def test_runs_that_are_not_promoted(suite: Suite, conftest: str, line: str, named: str) -> None:
    suite.write("conftest.py", conftest)
    suite.write(
        "test_steps.py",
        f"from perfsuite.judging.gates import missing\n{timed('test_b', 'test_a')}    {line}\n",
    )
    suite.run("--benchmark-json=run.json")
    with pytest.raises(BaselineError, match=rf"refused: test_steps\.py::{named}"):
        suite.promote(suite.folder / "run.json")
    assert not (suite.folder / "baselines").exists()


def without(*where: str) -> Callable[[Any], Any]:
    def change(document: Any) -> Any:
        inner = document
        for step in where[:-1]:
            inner = inner[step]
        del inner[where[-1]]
        return document

    return change


def schema(value: object) -> Callable[[Any], Any]:
    return lambda document: document | {"perfsuite": document["perfsuite"] | {"schema": value}}


def in_benchmark(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change_all(document: Any) -> Any:
        for entry in document["benchmarks"]:
            entry["extra_info"]["perfsuite"] = change(entry["extra_info"]["perfsuite"])
        return document

    return change_all


def step_s(value: object) -> Callable[[Any], Any]:
    figure = {"value": value, "unit": "s", "better": "lower"}
    return in_benchmark(lambda ours: ours | {"metrics": {"step_s": figure}})


NOT_JSON = "not valid JSON, damaged or cut short"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: b"", NOT_JSON, id="empty"),
        pytest.param(lambda content: content[:1], NOT_JSON, id="first-byte"),
        pytest.param(lambda content: content[: len(content) // 3], NOT_JSON, id="a-third"),
        pytest.param(lambda content: content[: len(content) // 2], NOT_JSON, id="half"),
        pytest.param(lambda content: content.rstrip()[:-1], NOT_JSON, id="but-for-a-byte"),
        pytest.param(lambda content: content + content, NOT_JSON, id="twice"),
        pytest.param(lambda _: bytes(range(256)), NOT_JSON, id="binary"),
        pytest.param(lambda content: b"\0" * len(content), NOT_JSON, id="zeroed"),
        pytest.param(lambda content: content.replace(b"0.01", b"NaN"), NOT_JSON, id="nan"),
        pytest.param(
            lambda content: content.decode().encode("utf-16"), NOT_JSON, id="another-encoding"
        ),
        pytest.param(lambda _: b"[" * 100_000, "not valid JSON", id="deep"),
        pytest.param(lambda _: b"[1]", "no section 'perfsuite'", id="a-list"),
    ],
)
def test_a_damaged_baseline_is_refused(
    judged: Suite, damage: Callable[[bytes], bytes], reason: str
) -> None:
    (saved,) = judged.saved()
    saved.write_bytes(damage(saved.read_bytes()))
    judged.step_s(0.02)
    theirs = as_plain(judged).run_plain("--benchmark-compare")
    assert theirs.ret == 0
    assert f"Failed to load {saved}" in theirs.stderr.str()

    as_timed(judged)
    (promoted,) = (judged.folder / "baselines" / HARDWARE).glob("*.json")
    sound = promoted.with_name("sound.json")
    sound.write_bytes(promoted.read_bytes())
    promoted.write_bytes(damage(promoted.read_bytes()))
    line = usage_error(judged.compare())
    assert f"{promoted}: " in line
    assert reason in line
    assert "restore the file, or remove it from the baseline" in line
    promoted.unlink()
    assert judged.compare().ret == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(schema(2), "later perfsuite (schema 2, this one reads 1)", id="future"),
        pytest.param(schema("1"), "its schema is '1'", id="schema-text"),
        pytest.param(schema(0), "its schema is 0", id="schema-zero"),
        pytest.param(schema(True), "its schema is True", id="schema-true"),
        pytest.param(without("perfsuite"), "no section 'perfsuite'", id="pytest-benchmark's"),
        pytest.param(without("perfsuite", "schema"), "its schema is None", id="no-schema"),
        pytest.param(without("perfsuite", "hardware"), "`hardware`", id="no-hardware"),
        pytest.param(without("perfsuite", "items"), "`items`", id="no-items"),
        pytest.param(without("commit_info"), "not a valid run", id="no-commit"),
        pytest.param(without("benchmarks"), "not a valid run", id="no-benchmarks"),
        pytest.param(lambda d: d | {"benchmarks": []}, "holds no benchmark", id="empty"),
        pytest.param(
            lambda d: d | {"benchmarks": 2 * d["benchmarks"]}, "a benchmark twice", id="twice"
        ),
        pytest.param(in_benchmark(lambda _: 3), "not a valid run", id="no-record"),
        pytest.param(in_benchmark(lambda o: o | {"metrics": None}), "`object`", id="no-metrics"),
        pytest.param(
            in_benchmark(lambda o: o | {"verdicts": [{"gate": "g", "outcome": "GOOD"}]}),
            "'GOOD'",
            id="outcome",
        ),
        pytest.param(step_s(0), "> 0", id="zero"),
        pytest.param(step_s(-0.01), "> 0", id="negative"),
        pytest.param(step_s(None), "`float`", id="null"),
        pytest.param(step_s("0.01"), "`float`", id="text"),
    ],
)
def test_a_baseline_that_is_not_a_valid_run_is_refused(
    suite: Suite, change: Callable[[Any], Any], reason: str
) -> None:
    suite.write("test_steps.py", timed("test_a"))
    promoted = suite.baseline()
    promoted.write_text(json.dumps(change(load(promoted))), encoding="utf-8")
    line = usage_error(suite.compare())
    assert f"{promoted}: " in line
    assert reason in line
    assert "restore the file, or remove it from the baseline" in line


def test_without_the_promoted_commit_a_suspicion_stands_and_says_why(judged: Suite) -> None:
    judged.step_s(0.0105)
    text = judged.compare().stdout.str()
    assert "INCONCLUSIVE" in text
    assert "not confirmed: 'unversioned' is no commit, so that it cannot be measured again" in text


def test_a_commit_that_is_gone_is_told_with_the_remedy(suite: Suite) -> None:
    """A rebased branch has lost it, and a shallow clone never had it."""
    suite.write("test_steps.py", timed("test_a"))
    suite.commit()
    promoted = suite.baseline()
    edit(promoted, ["commit_info", "id"], "0123456789abcdef")
    suite.step_s(0.02)
    result = suite.compare()
    assert result.ret == 1
    assert "promote runs of a commit that this repository has" in result.stdout.str()

    head = suite.folder / ".git" / "refs" / "heads" / "main"
    (suite.folder / ".git" / "shallow").write_bytes(next(head.parent.iterdir()).read_bytes())
    text = suite.compare().stdout.str()
    assert "the clone is shallow: fetch it whole (fetch-depth: 0" in text
