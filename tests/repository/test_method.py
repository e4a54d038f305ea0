"""The method's page: figures from the studies, constants from the code, links that lead on."""

import re
import sys
from collections.abc import Iterator
from inspect import signature
from math import expm1, log1p
from pathlib import Path
from shutil import copytree
from types import ModuleType

import pytest

from perfsuite.against import restart
from perfsuite.judging import blocks, ceilings, contamination, host_bound, stalls, stopping
from perfsuite.judging.estimates import HIDDEN, Estimate, paired_ratio, predicted_ratio
from perfsuite.judging.spreads import observed_spread, or_assumed
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring import bench, busy_batch, ceiling_search, kernels, profiling, timing, turns
from perfsuite.probes.registry import PROBES
from perfsuite.records import history, operators
from perfsuite.session import repeating
from perfsuite.training.arm import PERTURBATION
from perfsuite.training.tutorial import tutorial_workload

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "method.md"
STUDIES = ROOT / "docs" / "studies"
TEXT = PAGE.read_text(encoding="utf-8")
# Without what the command writes, and as if it were one line.
PROSE = re.sub(r"<!-- (\S+): begin -->.*?<!-- \1: end -->", "", TEXT, flags=re.DOTALL)
PROSE = re.sub(r"\s+", " ", PROSE)

DEFAULT, CPU = (load_thresholds(ROOT / "benchmarks" / "thresholds.toml", k) for k in ("", "cpu-x"))
TUTORIAL, TINY = tutorial_workload("tutorial"), tutorial_workload("tiny")
CONFIDENCE = DEFAULT.against.confidence
FIRST_LOOK, LAST_LOOK = (stopping.at_each_look(CONFIDENCE, stopping.LOOKS[at]) for at in (0, -1))
ALPHA = DEFAULT.convergence.alpha


def percent(share: float) -> str:
    return f"{100 * share:.6g} %"


PHRASES = [
    f"{TUTORIAL.block_steps} of the tutorial's network, {TINY.block_steps} of the small one",
    f"until the last {timing.STEADY_WINDOW} lie in the range of those before,"
    f" give or take {percent(timing.STEADY_TOLERANCE)}",
    f"but no more than {signature(timing.warm_up).parameters['max_blocks'].default}.",
    "after {} and {} observations".format(
        ", ".join(map(str, stopping.LOOKS[:-1])), stopping.LOOKS[-1]
    ),
    f"as often as one interval at {percent(CONFIDENCE)}: {percent((1 - CONFIDENCE) / 2)} on",
    f"The first gets 40 % of it, {percent(0.4 * (1 - CONFIDENCE) / 2)}: nine signs that agree by"
    f" chance have {100 * 0.5 ** stopping.LOOKS[0]:.3f} %",
    f"at {100 * FIRST_LOOK:.2f} % at the first look and at {100 * LAST_LOOK:.2f} % at the last",
    f"kept between {HIDDEN} / n and 0.9",
    f"A block lasts {1000 * ceiling_search.BLOCK_S:g} ms at least",
    f"until {ceilings.PATIENCE} of them in a row are no faster, each of {ceilings.BLOCKS} blocks;"
    f" the fastest size has what is left of {ceiling_search.BUDGET_S:g} s of blocks",
    f"as last about {restart.TURNS_OVER_START} times as long as its start did",
    f"in half as many cases: {percent((1 - CONFIDENCE) / 2)}",
    f"a chance of {percent((1 - CONFIDENCE) / 2)} at most",
    f"took more than {blocks.SLOW:g} times as long as that",
    f"It is {kernels.STEPS} steps, {kernels.REPEATS} times",
    f"where it is {percent(host_bound.MOST_IDLE)} or more, and the host launched for"
    f" {percent(host_bound.LEAST_HOST)} of the step",
    f"{busy_batch.MOST_DOUBLINGS} times at most, until in both precisions the host has launched"
    f" {busy_batch.STEPS} steps before {percent(host_bound.EARLY_HOST)} of their time is over",
    f"no more than {percent(host_bound.MOST_IDLE)} of it",
    f"by more than {stalls.FAR_OUT:g} interquartile ranges",
    f"a {'twelfth' if stalls.GROUPS == 12 else stalls.GROUPS} of the groups of four",
    f"stalls are {'half' if stalls.LEAST_SHARE == 0.5 else stalls.LEAST_SHARE} or more",
    f"stretches of {bench.STRETCH_STEPS} steps, fewer where they would last longer than"
    f" {turns.STRETCH_S:g} s, {4 * stopping.LOOKS[0]} of them or more",
    f"more than {percent(contamination.MOST_OTHERS)} of the cores",
    f"measured once more after {repeating.PAUSE_S:g} s",
    f"{TUTORIAL.convergence_seeds} pairs of {TUTORIAL.convergence_steps} steps for the tutorial's",
    f"{TINY.convergence_seeds} pairs of {TINY.convergence_steps} for the small one",
    f"two one-sided tests, each at {percent(ALPHA)}",
    f"Student's interval at {percent(1 - 2 * ALPHA)} has to lie within the margin,"
    f" {percent(DEFAULT.convergence.margin)} by default and {percent(CPU.convergence.margin)} on a",
    f"changed by about {PERTURBATION:f} of themselves",
    f"passes at up to {percent(2 * ALPHA)}, not {percent(ALPHA)}",
    f"The {len(PROBES)} probes",
    f"that the next run exceeds in {percent(1 - DEFAULT.compare.confidence)} of all cases",
    f"more than the margin, {percent(DEFAULT.compare.margin)} by default and"
    f" {percent(CPU.compare.margin)} on a CPU",
    f"taken for known: {percent(DEFAULT.compare.assumed_spread)}, and"
    f" {percent(CPU.compare.assumed_spread)} on a CPU",
    f"at least {restart.MIN_QUADS} and at most {restart.MAX_QUADS}.",
    f"on both sides of one: {percent(DEFAULT.against.margin)} by default,"
    f" {percent(CPU.against.margin)} on a CPU",
    f"The price is {history.PENALTY:g} log(n) times",
    f"further than {history.FARTHEST:g} deviations from the median of {history.NEIGHBOURS}",
    f"A stretch has {history.LEAST_RUNS} runs or more",
    f"profiles of {profiling.STEPS} steps, {profiling.REPEATS} a side",
    f"the {operators.TOP} largest by name, and of those up to {operators.NAMED} that make up a"
    f" {'tenth' if operators.LEAST_SHARE == 0.1 else operators.LEAST_SHARE} of the change",
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_constant_is_the_code_s(phrase: str) -> None:
    assert phrase in PROSE


def test_all_gates_have_the_confidence_that_is_spoken_of() -> None:
    for asked in (DEFAULT, CPU):
        gates = asked.amp_speedup, asked.harness_overhead, asked.loader, asked.compare
        assert {gate.confidence for gate in (*gates, asked.against)} == {CONFIDENCE}


def test_the_budget_is_the_default(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getoption("perf_budget") == turns.USUAL_BUDGET_S
    assert f"spent, {pytestconfig.getoption('perf_budget'):g} seconds by default" in PROSE


def test_the_correlation_is_kept_where_it_is_said() -> None:
    rising = paired_ratio([1 + i / 100 for i in range(40)], [1.0] * 40)
    turns = [1 + (i // 2 + 20 * (i % 2)) / 100 for i in range(40)]  # low, high, low, high
    turning = paired_ratio(turns, [1.0] * 40)
    # The same numbers in the order that widens least, and in the one that widens most.
    assert log_width(rising) / log_width(turning) == pytest.approx(
        ((1.9 / 0.1) / ((40 + HIDDEN) / (40 - HIDDEN))) ** 0.5
    )


def log_width(found: Estimate) -> float:
    return log1p(found.high - 1) - log1p(found.low - 1)


def test_one_run_never_passes_unchanged_and_three_that_agree_always_do() -> None:
    assert "One promoted run" in PROSE
    for asked in (DEFAULT.compare, CPU.compare):
        confidence = 2 * asked.confidence - 1
        one = or_assumed(observed_spread([1.0]), asked.assumed_spread)
        found = predicted_ratio(1.0, [1.0], spread=one.deviation, confidence=confidence)
        assert found.high > 1 + asked.margin
        assert or_assumed(observed_spread([1.0] * 3), asked.assumed_spread).deviation == 0.0


def test_what_would_have_been_seen_is_an_estimate_that_far_from_one() -> None:
    """The page says so of the words in `perfsuite.against.changes`."""
    logs = [(-1) ** i * 0.01 for i in range(12)]
    confidence = stopping.at_each_look(CONFIDENCE, 12)
    found = paired_ratio([1 + expm1(each) for each in logs], [1.0] * 12, confidence=confidence)
    visible = log1p(DEFAULT.against.margin) + log_width(found) / 2
    moved = paired_ratio([1 + expm1(each + visible) for each in logs], [1.0] * 12)
    assert moved.low >= 1 + DEFAULT.against.margin - 1e-12  # rounding


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_a_link_leads_somewhere(link: str) -> None:
    assert "://" in link or (PAGE.parent / link.partition("#")[0]).exists()


@pytest.fixture
def error_rates(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    before = list(sys.path)
    import error_rates

    yield error_rates
    sys.path[:] = before


@pytest.fixture
def page(tmp_path: Path) -> Path:
    copy = tmp_path / "method.md"
    copy.write_text(TEXT, encoding="utf-8")
    return copy


def test_the_page_holds_what_the_command_writes(error_rates: ModuleType, page: Path) -> None:
    assert error_rates.main([str(STUDIES), str(page)]) == 0
    assert page.read_text(encoding="utf-8") == TEXT
    assert [each.name for each in page.parent.iterdir()] == [page.name]


@pytest.mark.parametrize("kind", ["detection", "rates", "convergence", "against", "history"])
@pytest.mark.parametrize("content", [None, "{", "[]", "{}"], ids=["gone", "cut", "list", "empty"])
def test_a_study_that_is_missing_or_corrupt_leaves_the_page_alone(
    error_rates: ModuleType,
    page: Path,
    kind: str,
    content: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    studies = page.parent / "studies"
    copytree(STUDIES, studies)
    damaged = [
        path
        for path in studies.glob("*.json")
        if kind == ("rates" if ".rates" in path.name else re.split("[-.]", path.name)[0])
    ]
    assert damaged
    for path in damaged:
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    assert error_rates.main([str(studies), str(page)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error_rates: ")
    assert said.count("\n") == 1
    assert str(studies) in said
    assert page.read_text(encoding="utf-8") == TEXT


def test_a_study_of_nothing_is_refused(
    error_rates: ModuleType, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = page.parent / "studies"
    copytree(STUDIES, studies)
    (path,) = studies.glob("against-*.json")
    path.write_text('{"hardware":"a","count":1,"software":{},"sessions":[]}', encoding="utf-8")
    assert error_rates.main([str(studies), str(page)]) == 1
    assert f"{path}: nothing was recorded" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == TEXT


def test_a_page_without_a_place_for_them_is_left_alone(
    error_rates: ModuleType, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.write_text("nothing here", encoding="utf-8")
    assert error_rates.main([str(STUDIES), str(page)]) == 1
    assert "no <!-- example: begin -->" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "nothing here"


def test_it_takes_two_arguments(
    error_rates: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_rates.main([str(PAGE)]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
