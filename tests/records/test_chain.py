"""The chain of baselines: kept by promotions, read by sessions, and never in the way of either."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from suites import HARDWARE, THRESHOLDS, Suite, edit, load, timed, usage_error

from perfsuite.__main__ import main
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.records.baseline import BaselineError, load_baseline
from perfsuite.records.chain import Promotion, accepted_since, creep, encode_chain, read_chain
from perfsuite.records.schema import Metric

RECORD: tuple[str | int, ...] = ("benchmarks", 0, "extra_info", "perfsuite")
Make = Callable[..., Path]


def commit(number: int) -> str:
    return f"{number:02}" * 20


def asked(suite: Suite, creep: str) -> None:
    suite.write("thresholds.toml", f"{THRESHOLDS}\n[defaults.creep]\n{creep}\n")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_steps.py", timed("test_a"))
    return suite


@pytest.fixture
def make(suite: Suite) -> Make:
    """Return a function that makes a run of a commit, one a day, with a figure."""
    content = suite.recorded()

    def make_run(number: int, step_s: float = 0.01, *, run: int = 0, torch: str = "2.14.1") -> Path:
        path = suite.folder / "runs" / f"{number}-{run}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        edit(path, ["commit_info"], {"id": commit(number), "dirty": False})
        edit(path, ["perfsuite", "started"], f"2026-01-{number + 1:02}T02:0{run}:00+00:00")
        edit(path, ["perfsuite", "software", "torch"], torch)
        edit(path, [*RECORD, "metrics", "step_s", "value"], step_s)
        return path

    return make_run


@pytest.fixture
def folder(suite: Suite) -> Path:
    return suite.folder / "baselines" / HARDWARE


def creeping(suite: Suite, make: Make, share: float, count: int = 10) -> None:
    """Promote one baseline after the other, three runs each, so much slower every time."""
    for number in range(count + 1):
        value = 0.01 * (1 + share) ** number
        runs = [make(number, value * noise, run=k) for k, noise in enumerate((0.999, 1, 1.001))]
        suite.promote(*runs, replace=True)
    suite.step_s(0.01 * (1 + share) ** count)


def test_a_promotion_is_an_entry_with_a_line_for_each_figure(
    suite: Suite, make: Make, folder: Path
) -> None:
    suite.promote(make(0, 0.01), make(0, 0.04, run=1))
    text = (folder / "chain.toml").read_text()
    digest = read_chain(folder)[0].figures[0].config
    assert text.partition("\n\n")[2] == (
        f'[[promotion]]\ncommit = "{commit(0)}"\ndate = "2026-01-01"\nruns = 2\n'
        'torch = "2.14.1"\nfigures = [\n'
        '  { benchmark = "test_steps.py::test_a", figure = "step_s", value = 0.02, unit = "s",'
        f' better = "lower", config = "{digest}" }},\n]\n'
    )
    suite.promote(make(1, 0.03, torch="2.15.0"), replace=True)
    assert (folder / "chain.toml").read_text().startswith(text)
    chain = read_chain(folder)
    assert [(each.commit, each.runs, each.torch) for each in chain] == [
        (commit(0), 2, "2.14.1"),
        (commit(1), 1, "2.15.0"),
    ]
    assert [each.figures[0].value for each in chain] == [0.02, 0.03]


def test_further_runs_of_a_commit_are_no_further_entry(
    suite: Suite, make: Make, folder: Path
) -> None:
    suite.promote(make(0, 0.01))
    suite.promote(make(0, 0.04, run=1))
    suite.promote(make(0, 0.04, run=1))
    (one,) = read_chain(folder)
    assert (one.runs, one.figures[0].value) == (2, 0.02)


def test_new_runs_of_a_commit_that_replace_the_old_ones_are_a_further_entry(
    suite: Suite, make: Make, folder: Path
) -> None:
    """As after a new driver: the same code is slower for good, and that was accepted."""
    suite.promote(make(0, 0.01), make(0, 0.01, run=1))
    kept, other = suite.promote(make(0, 0.02, run=2), make(0, 0.02, run=3), replace=True)
    assert sorted(folder.glob("*.json")) == sorted([kept, other])
    for _ in range(2):  # to promote the same again replaces nothing
        chain = accepted_since(load_baseline(suite.folder, HARDWARE), None)
        assert [each.commit for each in chain] == [commit(0), commit(0)]
        assert [each.figures[0].value for each in chain] == [pytest.approx(0.01), 0.02]
        suite.promote(kept, other, replace=True)
    suite.step_s(0.02)
    assert "FAIL creep step_s: 2.000x" in suite.compare().stdout.str()
    suite.promote(kept, replace=True)
    assert list(folder.glob("*.json")) == [kept]


def test_later_nights_change_no_creep(suite: Suite, make: Make) -> None:
    """Neither a restless machine nor a speed-up that nobody promoted makes it unclear."""
    creeping(suite, make, 0.001, count=1)
    baseline = load_baseline(suite.folder, HARDWARE)
    (key,) = baseline.markers()
    passed = Verdict(gate="compare step_s", outcome=Outcome.PASS, figure="", threshold="")
    nights = []
    for value in (0.007, 0.009) * 10:
        metrics = {"step_s": Metric(value=value, unit="s", better="lower")}
        record = structs.replace(
            baseline.runs[0].benchmarks[key], metrics=metrics, verdicts=[passed]
        )
        nights.append(structs.replace(baseline.runs[0], benchmarks={key: record}))
    taught = dataclasses.replace(baseline, nights=tuple(nights))
    assert taught.spreads != baseline.spreads
    thresholds = load_thresholds(suite.folder / "thresholds.toml", HARDWARE)
    chain = accepted_since(baseline, None)
    (verdict,) = creep(chain, taught, key, thresholds)
    assert verdict.outcome is Outcome.PASS
    assert [verdict] == creep(chain, baseline, key, thresholds)


def test_a_baseline_from_before_there_were_chains(suite: Suite, make: Make, folder: Path) -> None:
    suite.promote(make(0, 0.01))
    (folder / "chain.toml").unlink()
    assert suite.compare("-k", "test_a").ret == 0
    assert len(accepted_since(load_baseline(suite.folder, HARDWARE), None)) == 1
    suite.promote(make(1, 0.02), replace=True)
    assert [each.figures[0].value for each in read_chain(folder)] == [0.01, 0.02]


def test_a_baseline_that_somebody_put_there_by_hand(suite: Suite, make: Make, folder: Path) -> None:
    (first,) = suite.promote(make(0))
    kept = first.read_bytes()
    (second,) = suite.promote(make(1), replace=True)
    second.unlink()
    first.write_bytes(kept)
    chain = accepted_since(load_baseline(suite.folder, HARDWARE), None)
    assert [each.commit for each in chain] == [commit(0), commit(1), commit(0)]


@pytest.mark.parametrize("share", [0.02, 0.001])
def test_ten_losses_are_red_together_though_each_was_accepted(
    suite: Suite, make: Make, share: float
) -> None:
    asked(suite, "margin = 0.1")
    creeping(suite, make, share)
    run = suite.folder / "night.json"
    result = suite.compare(f"--benchmark-json={run}")
    verdicts = {
        each["gate"]: each
        for each in load(run)["benchmarks"][0]["extra_info"]["perfsuite"]["verdicts"]
    }
    assert verdicts["compare step_s"]["outcome"] == "PASS"
    if share < 0.01:
        assert result.ret == 0
        assert verdicts["creep step_s"]["outcome"] == "PASS"
        return
    assert result.ret == 1
    assert verdicts["creep step_s"]["outcome"] == "FAIL"
    result.stdout.fnmatch_lines(["*FAIL creep step_s: 1.219x *at most 10.0% in all*"])
    assert f"2026-01-02 {commit(1)[:12]} +2.0%, 2026-01-03" in verdicts["creep step_s"]["reason"]


def test_it_counts_from_the_commit_that_is_named(suite: Suite, make: Make) -> None:
    creeping(suite, make, 0.02)
    asked(suite, f'margin = 0.1\nsince = "{commit(9)}"')
    assert suite.compare().ret == 0
    asked(suite, "margin = 0.3")
    assert suite.compare().ret == 0
    asked(suite, 'since = "v2"')
    assert "[creep] since: " in usage_error(suite.compare())


def test_it_counts_from_a_tag_of_the_repository(suite: Suite, make: Make, folder: Path) -> None:
    suite.commit()
    suite.git("tag", "before")
    for number in range(3):
        suite.commit()
        suite.git("tag", f"v{number}")
        head = suite.pytester.run("git", "rev-parse", "HEAD").outlines[0]
        path = make(number)
        edit(path, ["commit_info", "id"], head)
        suite.promote(path, replace=True)
    baseline = load_baseline(suite.folder, HARDWARE)
    assert [len(accepted_since(baseline, f"v{number}")) for number in range(3)] == [3, 2, 1]
    suite.commit()
    suite.git("tag", "later")
    assert len(accepted_since(baseline, "later")) == 1
    # As on hardware whose first baseline came after that tag.
    assert len(accepted_since(baseline, "before")) == 3


def test_a_commit_that_no_baseline_leads_to_is_refused(
    suite: Suite, make: Make, folder: Path
) -> None:
    """A squashed merge: what was promoted is on a branch, or nowhere any more."""
    suite.commit()
    suite.git("tag", "v1")
    suite.promote(make(0))
    suite.promote(make(1), replace=True)
    asked(suite, 'since = "v1"')
    line = usage_error(suite.compare())
    assert "[creep] since = 'v1': none of the promoted commits leads to it" in line
    assert f"name one of chain.toml, such as {commit(1)[:12]}" in line
    asked(suite, f'since = "{commit(1)[:12]}"')
    assert suite.compare().ret == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "utf-8"),
        (b"[[promotion]\n", "Expected"),
        (b'[[promotion]]\ncommit = "a"\n', "missing required field `date`"),
        (b"promotions = []\n", "unknown field `promotions`"),
        (b'[[promotion]]\ncommit = "a"\ndate = "b"\nruns = 0\n', "`int` >= 1"),
    ],
    ids=["bytes", "no-toml", "cut-short", "other-key", "no-run"],
)
def test_a_chain_that_cannot_be_read_is_one_line(  # noqa: PLR0917  # fixtures
    suite: Suite,
    make: Make,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    why: str,
) -> None:
    (old,) = suite.promote(make(0))
    path = folder / "chain.toml"
    path.write_bytes(content)
    line = usage_error(suite.compare())
    assert f"{path}: cannot be read: " in line
    assert why in line
    capsys.readouterr()
    new = str(make(1))
    assert main(["promote", "--replace", f"--suite={suite.folder}", new]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; restore the file, or remove it to start a new chain")
    assert why in line
    assert path.read_bytes() == content
    assert list(folder.glob("*.json")) == [old]
    path.unlink()
    assert main(["promote", "--replace", f"--suite={suite.folder}", new]) == 0


@pytest.mark.parametrize("value", ["inf", "nan", "0.0", "-1.0"])
def test_no_figure_is_no_number(tmp_path: Path, value: str) -> None:
    (tmp_path / "chain.toml").write_text(
        '[[promotion]]\ncommit = "a"\ndate = "b"\nruns = 1\ntorch = "c"\nfigures = [{ benchmark ='
        f' "a", figure = "b", value = {value}, unit = "s", better = "lower", config = "c" }}]\n'
    )
    with pytest.raises(BaselineError, match=r"value must be finite|`float` > 0"):
        read_chain(tmp_path)


def test_any_name_survives_the_file(tmp_path: Path) -> None:
    name = 'a"b\\c\n\x7f\x00ü😀'
    chain = [Promotion(commit=name, date="", runs=1, torch="", figures=[])]
    (tmp_path / "chain.toml").write_bytes(encode_chain(chain))
    assert read_chain(tmp_path) == chain


@pytest.mark.parametrize("broken", ["write_part", "write_new"])
def test_a_disk_that_fills_leaves_the_baseline_as_it_was(
    suite: Suite, make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    suite.promote(make(0))
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def fill(path: Path, content: bytes) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"perfsuite.records.promotion.{broken}", fill)
    with pytest.raises(OSError, match="No space left"):
        suite.promote(make(1), replace=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
