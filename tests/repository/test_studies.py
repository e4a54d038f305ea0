"""The studies: rules that say what they say elsewhere, replay, resuming, and pages from JSON."""

import random
import subprocess
from pathlib import Path

import comparison_study
import convergence_study
import detection_study
import history_study
import msgspec
import planted
import pytest
from convergence_study import ConvergenceStudy, ConvergenceTrial
from history_study import HistoryCase
from recordings import DetectionStudy, read_study, write_study
from replay import replay, replay_sequential
from slowdown import slowed
from study_pages import Rate, page, rates
from study_verdicts import (
    RULES,
    DetectionTrial,
    PairTimes,
    perfsuite_says,
    sequential_rules_say,
    verdicts,
)

from perfsuite.judging.gates import Outcome

DOCS = Path(__file__).parents[2] / "docs" / "studies"
STUDIES = sorted(path for path in DOCS.glob("detection-*.json") if ".rates" not in path.name)


def trial(
    slowdown: float = 0.0, *, seed: int = 0, spread: float = 0.02, n: int = 14
) -> DetectionTrial:
    noise = random.Random(seed)

    def times(k: int, factor: float = 1.0) -> list[float]:
        return [0.03 * factor * (1 + noise.gauss(0, spread)) for _ in range(k)]

    slower = 1 + slowdown
    return DetectionTrial(
        slowdown=slowdown,
        budget_s=30.0,
        restarts=[PairTimes(before_s=times(6), after_s=times(6, slower)) for _ in range(n)],
        restarts_s=2.0 * n,
        before_s=times(50),
        after_s=times(50, slower),
        started="2026-01-01T00:00:00+00:00",
        load_1min=1.0,
    )


def study(*trials: DetectionTrial) -> DetectionStudy:
    software = {"torch": "2.0", "pytest-benchmark": "5.3", "python": "3.11"}
    return DetectionStudy(hardware="a machine", count=2, software=software, trials=list(trials))


def test_every_rule_finds_a_step_that_takes_twice_as_long_and_none_an_equal_one() -> None:
    assert set(verdicts(trial(1.0)).values()) == {Outcome.FAIL}
    assert verdicts(trial(1.0)).keys() == set(RULES)
    assert set(verdicts(trial(spread=0.001)).values()) == {Outcome.PASS}


def test_faster_is_not_slower() -> None:
    assert Outcome.FAIL not in verdicts(trial(-0.5)).values()


@pytest.mark.parametrize(
    ("factor", "failing"),
    [(1.04, {"Mann-Whitney"}), (1.06, {"min:5%", "median:5%", "mean:5%", "Mann-Whitney"})],
)
def test_the_rules_of_others_are_theirs(factor: float, failing: set[str]) -> None:
    before = [1.0 + i / 1000 for i in range(20)]
    said = sequential_rules_say(before, [time_s * factor for time_s in before])
    assert {rule for rule, outcome in said.items() if outcome is Outcome.FAIL} == failing


def test_replay_finds_what_is_planted_and_is_the_same_each_time() -> None:
    trials = [trial(0.1, seed=seed) for seed in range(4)]
    plain = replay(trials, slowdown=0.0, budget_s=30.0, n=50, seed=1)
    slowed = replay(trials, slowdown=0.2, budget_s=30.0, n=50, seed=1)
    assert Outcome.FAIL not in plain
    assert set(slowed) == {Outcome.FAIL}
    assert plain == replay(trials, slowdown=0.0, budget_s=30.0, n=50, seed=1)


def test_replay_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def unclear(ratios: list[float]) -> Outcome:
        judged.append(len(ratios))
        return Outcome.INCONCLUSIVE

    monkeypatch.setattr("replay.perfsuite_says", unclear)
    replay([trial(n=40)], slowdown=0.0, budget_s=30.0, n=1, seed=0)
    assert judged[-1] == 15  # of 2 s each


def test_sequential_replay_judges_the_two_runs_of_each_trial_once() -> None:
    said = replay_sequential([trial(seed=1), trial(seed=2)], slowdown=0.5, budget_s=30.0)
    assert {rule: len(each) for rule, each in said.items()} == dict.fromkeys(RULES[1:], 2)
    assert {outcome for each in said.values() for outcome in each} == {Outcome.FAIL}


def test_trials_that_perfsuite_had_for_itself_are_judged_by_it_alone() -> None:
    alone = msgspec.structs.replace(trial(1.0), before_s=[], after_s=[])
    assert verdicts(alone) == {"perfsuite": Outcome.FAIL}
    assert replay_sequential([alone], slowdown=0.0, budget_s=30.0) == {}


def test_a_study_survives_its_file(tmp_path: Path) -> None:
    before = study(trial(), trial(0.1))
    write_study(tmp_path / "a" / "study.json", before)
    assert read_study(tmp_path / "a" / "study.json") == before
    assert read_study(tmp_path / "none.json") is None


@pytest.fixture
def fake_trials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Return the trials that are asked for, none of which takes any time."""
    asked: list[tuple[float, int]] = []

    def run(index: int, *, slowdown: float, budget_s: float, **_: object) -> DetectionTrial:
        asked.append((slowdown, index))
        if index == 2:
            raise KeyboardInterrupt
        return msgspec.structs.replace(trial(slowdown, seed=index), budget_s=budget_s)

    monkeypatch.setattr(detection_study, "run_trial", run)
    monkeypatch.setattr("study_pages.AA_REPLAYS", 20)
    monkeypatch.setattr("study_pages.REPLAYS", 10)
    return asked


def test_a_study_that_was_broken_off_goes_on_where_it_stood(
    fake_trials: list[tuple[float, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--slowdowns", "0", "10", "--folder", str(tmp_path), "--trials"]
    assert detection_study.main([*arguments, "3"]) == 130
    assert "4 trials are kept" in capsys.readouterr().err
    assert fake_trials == [(0.0, 0), (0.1, 0), (0.0, 1), (0.1, 1), (0.0, 2)]
    fake_trials.clear()
    assert detection_study.main([*arguments, "2"]) == 0
    assert fake_trials == []
    written = {path.suffixes[-1] for path in tmp_path.iterdir()}
    assert written == {".json", ".md", ".svg"}


def test_recordings_of_other_software_are_not_added_to(
    fake_trials: list[tuple[float, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--trials", "1", "--slowdowns", "0", "--folder", str(tmp_path)]
    assert detection_study.main(arguments) == 0
    (path,) = (p for p in tmp_path.glob("*.json") if ".rates" not in p.name)
    old = read_study(path)
    assert old is not None
    old.software["torch"] = "1.0"
    write_study(path, old)
    fake_trials.clear()
    assert detection_study.main([*arguments, "--trials", "2"]) == 1
    assert "other software (torch 1.0 -> " in capsys.readouterr().err
    assert fake_trials == []


def test_recordings_that_cannot_be_read_are_left_alone(
    fake_trials: list[tuple[float, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detection_study.main(["--trials", "1", "--folder", str(tmp_path)]) == 0
    (path,) = (p for p in tmp_path.glob("*.json") if ".rates" not in p.name)
    path.write_text("{", encoding="utf-8")
    assert detection_study.main(["--trials", "1", "--folder", str(tmp_path)]) == 1
    assert f"{path}: cannot be read" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "{"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "-3"], "--budget -3: at least 30 s"),
        (["--budget", "nan"], "--budget nan: at least 30 s"),
        (["--slowdowns", "-5"], "--slowdowns: from 0 to 1000 %"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        detection_study.main(arguments)
    assert message in capsys.readouterr().err


def test_a_study_on_a_device_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert detection_study.main(["--device", "cuda", "--folder", str(tmp_path)]) == 1
    assert "detection: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_rates_count_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study_pages.AA_REPLAYS", 20)
    monkeypatch.setattr("study_pages.REPLAYS", 10)
    found = rates([trial(), trial(1.0), trial(1.0, seed=1)])
    live = {(rate.rule, rate.slowdown): rate for rate in found if rate.how == "live"}
    assert (live["perfsuite", 1.0].n, live["perfsuite", 1.0].fail) == (2, 2)
    assert live["perfsuite", 0.0].fail == 0
    for rate in found:
        if rate.how == "replay":
            assert rate.low is rate.high is None
        else:
            assert rate.low is not None
            assert rate.high is not None
            assert rate.low <= rate.fail / rate.n <= rate.high


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_published_page_is_what_its_json_says(path: Path) -> None:
    recorded = read_study(path)
    assert recorded is not None
    found = msgspec.json.decode(path.with_suffix(".rates.json").read_bytes(), type=list[Rate])
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == page(recorded, found, path.with_suffix(".svg").name)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_published_rates_are_those_of_the_recordings(path: Path) -> None:
    recorded = read_study(path)
    assert recorded is not None
    found = msgspec.json.decode(path.with_suffix(".rates.json").read_bytes(), type=list[Rate])
    live = {(r.slowdown, r.budget_s): r for r in found if (r.how, r.rule) == ("live", "perfsuite")}
    for (slowdown, budget_s), rate in live.items():
        said = [
            perfsuite_says([each.ratio for each in trial.restarts])
            for trial in recorded.trials
            if (trial.slowdown, trial.budget_s) == (slowdown, budget_s)
        ]
        assert (rate.n, rate.fail) == (len(said), said.count(Outcome.FAIL))


def test_the_slowdown_is_a_share_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = detection_study.make_arm(0, device="cpu", slowdown=0.0)
    readings = iter([10.0, 12.0, 12.5, 13.1])
    monkeypatch.setattr("time.perf_counter", lambda: next(readings))
    wait = slowed(arm, 0.5, "cpu")
    wait(arm.take(1)[0])
    # From 10 to 12 s is the step; half as long again ends at 13 s, seen at 13.1 s.
    assert next(readings, None) is None


def test_the_published_convergence_page_is_what_its_json_says() -> None:
    paths = sorted(DOCS.glob("convergence-*.json"))
    assert paths
    for path in paths:
        recorded = msgspec.json.decode(path.read_bytes(), type=ConvergenceStudy)
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        assert text == convergence_study.page(recorded)


def test_the_convergence_study_counts_the_worst_gate() -> None:
    said = {"mean_loss": Outcome.PASS, "finite": Outcome.FAIL}
    one = ConvergenceTrial(case="a", outcomes=said, mean_loss="1x", twice=False)
    assert convergence_study.worst(one) is Outcome.FAIL


def test_the_published_history_page_is_what_its_json_says() -> None:
    told = msgspec.json.decode((DOCS / "history.json").read_bytes(), type=list[HistoryCase])
    assert (DOCS / "history.md").read_text().rstrip() == history_study.page(told).rstrip()


def test_the_history_study_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_study, "TRIALS", 20)
    assert history_study.cases() == history_study.cases()


@pytest.mark.parametrize("path", sorted(DOCS.glob("against-*.json")), ids=lambda path: path.stem)
def test_the_published_comparison_page_is_what_its_json_says(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=comparison_study.ComparisonStudy)
    page = path.with_suffix(".md").read_text()
    assert page.rstrip() == comparison_study.report(study).rstrip()


def test_a_planted_step_is_slower_and_the_clone_as_it_was(tmp_path: Path) -> None:
    tree = planted.clone(tmp_path / "tree")
    assert not subprocess.run(["git", "diff", "--quiet"], cwd=tree, check=False).returncode
    planted.plant(tree, 0.1)
    source = (tree / planted.STEPS).read_text(encoding="utf-8")
    assert "slowed(arm, 0.1, " in source
    names: dict[str, object] = {}
    exec(compile(source, str(planted.STEPS), "exec"), names)
    assert names["Workload"].arm is names["_slow_arm"]  # type: ignore[attr-defined]  # planted
