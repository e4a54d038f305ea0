"""Comparison with promoted runs: what is judged, and what cannot be judged fails."""

import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs, to_builtins

from perfsuite.judging.confirmation import ENVIRONMENT
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.thresholds import CompareLimits
from perfsuite.records.baseline import Baseline, compare, with_nights
from perfsuite.records.schema import Benchmark, Metric, Run, encode

ASKED = CompareLimits(margin=0.05, assumed_spread=0.01, environment="fail")
KEY = "test_a.py::test_a"


def benchmark(
    *, key: str = KEY, config: dict[str, Any] | None = None, **metrics: float | Metric
) -> Benchmark:
    return Benchmark(
        key=key,
        config={"batch_size": 16} if config is None else config,
        metrics={
            name: value
            if isinstance(value, Metric)
            else Metric(value=value, unit="s", better="lower")
            for name, value in metrics.items()
        },
        verdicts=[],
    )


def baseline(*benchmarks: Benchmark, software: dict[str, Any] | None = None) -> Baseline:
    runs = tuple(
        Run(
            path=Path(f"{number}.json"),
            content=b"",
            hardware="cpu",
            hardware_name="1 x a CPU",
            software=software or {},
            commit="abc",
            dirty=False,
            complete=True,
            against=None,
            unevaluated=[],
            baseline=[],
            items={each.key: "passed"},
            started=f"2026-01-0{number + 1}",
            benchmarks={each.key: each},
        )
        for number, each in enumerate(benchmarks)
    )
    return Baseline(folder=Path("baselines/cpu"), runs=runs)


def outcome(before: list[float], now: float, *, better: str = "lower") -> Outcome:
    def of(value: float) -> Benchmark:
        metric = Metric(value=value, unit="s", better=better)  # type: ignore[arg-type]  # a str here
        return benchmark(step_s=metric)

    (verdict,) = compare(baseline(*map(of, before)), of(now), ASKED)
    return verdict.outcome


CALM = [1.000, 1.002, 0.998, 1.001, 0.999]
NOISY = [1.00, 1.15, 0.90, 1.10, 0.85]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (CALM, 1.0, Outcome.PASS),
        (CALM, 1.03, Outcome.PASS),
        (CALM, 0.5, Outcome.PASS),
        (CALM, 1.10, Outcome.FAIL),
        (CALM, 1.05, Outcome.INCONCLUSIVE),
        (NOISY, 1.10, Outcome.INCONCLUSIVE),
        (NOISY, 3.0, Outcome.FAIL),
        ([1.0], 1.0, Outcome.PASS),
        ([1.0], 1.07, Outcome.INCONCLUSIVE),
        ([1.0], 1.20, Outcome.FAIL),
    ],
)
def test_lower_is_better(before: list[float], now: float, expected: Outcome) -> None:
    assert outcome(before, now) is expected
    assert outcome([1 / b for b in before], 1 / now, better="higher") is expected


@pytest.mark.parametrize(
    ("now", "expected"), [(1000, Outcome.PASS), (1040, Outcome.PASS), (1060, Outcome.FAIL)]
)
def test_bytes_are_counted_and_need_no_spread(now: float, expected: Outcome) -> None:
    before, after = (
        benchmark(peak_bytes=Metric(value=value, unit="B", better="lower")) for value in (1000, now)
    )
    wide = CompareLimits(margin=0.05, assumed_spread=0.1, environment="fail")
    (verdict,) = compare(baseline(before), after, wide)
    assert verdict.outcome is expected


def test_identical_code_is_not_called_slower() -> None:
    noise = random.Random(3)
    false = 0
    for _ in range(10_000):
        before = [math.exp(noise.gauss(0, 0.04)) for _ in range(5)]
        false += outcome(before, math.exp(noise.gauss(0, 0.04))) is Outcome.FAIL
    # A spread near the margin: half a per cent of the intervals lie above one, fewer above 1.05.
    assert false <= 20


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (benchmark(key="test_b.py::test_b", step_s=1.0), benchmark(step_s=1.0), "no promoted run"),
        (
            benchmark(step_s=1.0),
            benchmark(config={"batch_size": 32}, step_s=1.0),
            "batch_size 16 -> 32",
        ),
        (
            benchmark(config={}, step_s=1.0),
            benchmark(step_s=1.0),
            "batch_size None -> 16",
        ),
        (benchmark(step_s=1.0), benchmark(), "was not measured"),
        (benchmark(), benchmark(step_s=1.0), "missing from a promoted run"),
        (
            benchmark(step_s=Metric(value=1.0, unit="s", better="higher")),
            benchmark(step_s=1.0),
            "better was higher",
        ),
    ],
    ids=["new", "config", "config-added", "metric-gone", "metric-new", "better"],
)
def test_what_cannot_be_compared_fails(before: Benchmark, now: Benchmark, said: str) -> None:
    (verdict,) = compare(baseline(before), now, ASKED)
    assert verdict.outcome is Outcome.FAIL
    assert said in verdict.figure
    assert "promote" in verdict.reason


def test_a_metric_that_one_promoted_run_lacks_fails() -> None:
    before = baseline(benchmark(step_s=1.0), benchmark(), benchmark(step_s=1.0))
    (verdict,) = compare(before, benchmark(step_s=1.0), ASKED)
    assert verdict.outcome is Outcome.FAIL


def test_the_verdict_shows_both_figures() -> None:
    (verdict,) = compare(baseline(benchmark(step_s=0.02)), benchmark(step_s=0.03), ASKED)
    assert "0.02 -> 0.03 s" in verdict.figure
    assert "fewer than 3 runs" in verdict.reason


def test_an_upgrade_is_told() -> None:
    before = baseline(benchmark(step_s=1.0), software={"torch": "2.11", "python": "3.11"})
    told = before.summary({"torch": "2.15", "python": "3.11", "cudnn": 9})
    assert told[0] == "against 1 promoted run of abc in baselines/cpu"
    assert told[1:] == ["  changed since: cudnn None -> 9", "  changed since: torch 2.11 -> 2.15"]


def run_file(
    path: Path, before: list[str], *, step_s: float, outcome: Outcome, torch: str = "2.15"
) -> Path:
    """Write a night that was held against the runs that started at `before`."""
    verdict = Verdict(gate="compare step_s", outcome=outcome, figure="", threshold="")
    record = structs.replace(benchmark(step_s=step_s), verdicts=[verdict])
    document = {
        "commit_info": {"id": "abc", "dirty": False},
        "perfsuite": {
            "schema": 1,
            "hardware": {"key": "cpu", "name": "a CPU"},
            "software": {"torch": torch},
            "started": f"2026-02-{path.stem}",
            "complete": True,
            "items": {KEY: "passed"},
            "baseline": before,
        },
        "benchmarks": [{"extra_info": {"perfsuite": to_builtins(record)}}],
    }
    path.write_bytes(encode(document))
    return path


def test_nights_that_passed_against_these_runs_teach_how_a_figure_spreads(tmp_path: Path) -> None:
    ours = baseline(*[benchmark(step_s=each) for each in (1.0, 1.0001, 0.9999)])
    started = [run.started for run in ours.runs]
    for day, step_s in enumerate((1.02, 1.03, 0.98, 0.97, 1.02), start=10):
        run_file(tmp_path / f"{day}.json", started, step_s=step_s, outcome=Outcome.PASS)
    # Neither what was found to be worse, nor nights of another baseline, nor what is damaged.
    run_file(tmp_path / "20.json", started, step_s=2.0, outcome=Outcome.FAIL)
    run_file(tmp_path / "21.json", ["2025-01-01"], step_s=2.0, outcome=Outcome.PASS)
    (tmp_path / "22.json").write_text("{", encoding="utf-8")
    # A run that was saved twice is one night: between its copies nothing would scatter.
    (tmp_path / "report").mkdir()
    for day in range(10, 15):
        shutil.copy(tmp_path / f"{day}.json", tmp_path / "report")

    taught = with_nights(ours, tmp_path)
    assert len(taught.nights) == 6
    figure = (KEY, "step_s")
    assert ours.spreads[figure].deviation < 0.001
    assert 0.01 < taught.spreads[figure].deviation < 0.03

    now = benchmark(step_s=1.06)
    assert compare(ours, now, ASKED)[0].outcome is Outcome.FAIL
    assert compare(taught, now, ASKED)[0].outcome is Outcome.INCONCLUSIVE


def test_releases_of_pytorch_that_take_turns_teach_no_spread(tmp_path: Path) -> None:
    ours = baseline(*[benchmark(step_s=each) for each in (1.0, 1.0001, 0.9999)])
    started = [run.started for run in ours.runs]
    for day in range(10, 17):
        torch, step_s = [("2.13", 1.08), ("2.14", 1.04), ("2.15", 1.0)][day % 3]
        path = tmp_path / f"{day}.json"
        run_file(path, started, step_s=step_s, outcome=Outcome.PASS, torch=torch)
    assert with_nights(ours, tmp_path).spreads[KEY, "step_s"].deviation < 0.001


def test_figures_of_one_suite_share_what_they_know() -> None:
    """Three runs by themselves would leave a step of 1 % spread unclear."""
    noise = random.Random(0)
    runs = [{f"figure_{n}": math.exp(noise.gauss(0, 0.01)) for n in range(10)} for _ in range(4)]
    measured: list[Any] = runs
    together = baseline(*[benchmark(**run) for run in measured[:3]])
    alone = [baseline(*[benchmark(figure=run[name]) for run in runs[:3]]) for name in runs[0]]
    green = [each.outcome for each in compare(together, benchmark(**measured[3]), ASKED)]
    by_itself = [
        compare(each, benchmark(figure=now), ASKED)[0].outcome
        for each, now in zip(alone, runs[3].values(), strict=True)
    ]
    assert green.count(Outcome.PASS) >= 9
    assert by_itself.count(Outcome.PASS) <= 6


def test_no_command_is_told_that_would_not_search_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def which(since: str, searched: str, suite: Path) -> list[str]:
        told.append(searched)
        return ["which commit"]

    monkeypatch.setattr("perfsuite.records.baseline.which_commit", which)
    now = benchmark(step_s=1.0)
    before = baseline(now)
    green = Verdict(gate="compare step_s", outcome=Outcome.PASS, figure="", threshold="")
    slower = replace(green, gate="compare peak_bytes", outcome=Outcome.FAIL)
    assert before.reasons(now, {}, 1, [green, slower])[-1:] == ["which commit"]
    assert told[0].endswith(" --figure peak_bytes")
    alone = structs.replace(now, markers=["one_tree"])
    assert "which commit" not in before.reasons(alone, {}, 1, [slower])
    elsewhere = replace(slower, gate="environment peak_bytes", word=ENVIRONMENT)
    assert "which commit" not in before.reasons(now, {}, 1, [elsewhere])
