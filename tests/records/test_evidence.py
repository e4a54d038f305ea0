"""What is known of a machine: read from its runs, told in words, written with comments kept."""

import json
import math
import random
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perfsuite.__main__ import main
from perfsuite.judging.thresholds import ThresholdsError, load_thresholds
from perfsuite.records.advice_text import write_table
from perfsuite.records.baseline import BaselineError
from perfsuite.records.evidence import Evidence, read_evidence

KEY, HARDWARE = "test_steps.py::test_step_time[fp32]", "cpu-a"
DRAW = random.Random(5)


def metric(value: float, unit: str = "s") -> dict[str, Any]:
    return {"value": value, "unit": unit, "better": "lower"}


def block(step_s: float) -> dict[str, Any]:
    return {"steps": 10, "wall_s": step_s}


def verdict(gate: str, outcome: str, reason: str = "") -> dict[str, str]:
    return {"gate": gate, "outcome": outcome, "figure": "a", "threshold": "b", "reason": reason}


def noisy(scatter: float) -> float:
    return 0.01 * math.exp(DRAW.gauss(0, scatter))


def pair(scatter: float) -> dict[str, Any]:
    """Return a pair of processes of unchanged code, both of which scatter."""
    one, two = noisy(scatter), noisy(scatter)
    times_s = (one, two, two, one, two, one, one, two)
    turns = {"order": "ABBABAAB", "blocks": [block(time_s) for time_s in times_s]}
    sides = {
        side: {"metrics": {"step_s": metric(value), "peak_bytes": metric(100, "B")}, "raw": {}}
        for side, value in (("before", one), ("after", two))
    }
    return {"started": "AB", "turns": {"step_s": turns}, **sides}


def write(
    path: Path,
    number: int,
    value: float,
    *,
    verdicts: Sequence[dict[str, str]] = (),
    hardware: str = HARDWARE,
    section: dict[str, Any] | None = None,
    **record: Any,
) -> None:
    about = {
        "schema": 1,
        "hardware": {"key": hardware, "name": "a"},
        "software": {},
        "started": f"2026-{number // 28 + 1:02}-{number % 28 + 1:02}T00:00:00+00:00",
        "complete": True,
        "items": {KEY: "passed"},
    }
    found = {
        "key": KEY,
        "config": {"batch_size": 16},
        "metrics": {"step_s": metric(value), "peak_bytes": metric(100, "B")},
        "verdicts": list(verdicts),
        "raw": {"blocks": [block(value * math.exp(DRAW.gauss(0, 0.003))) for _ in range(50)]},
        "arms": {"fp32": {"warm_up": [block(0.01)] * 5}},
    }
    document = {
        "perfsuite": about | (section or {}),
        "commit_info": {"id": "a" * 40, "dirty": False},
        "benchmarks": [{"extra_info": {"perfsuite": found | record}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Return a suite of three promoted runs, whose processes scatter by 1 %."""
    for number in range(3):
        path = tmp_path / "benchmarks" / "baselines" / HARDWARE / f"{number}.json"
        write(path, number, noisy(0.01), verdicts=[verdict("step_s", "NOT GATED", "a reason")])
    return tmp_path / "benchmarks"


def known(suite: Path, hardware: str | None = None) -> Evidence:
    return read_evidence(suite, suite.parent / "history", hardware)


def test_a_suite_without_a_history(suite: Path) -> None:
    evidence = known(suite)
    assert (evidence.hardware, evidence.promoted, evidence.nights) == (HARDWARE, 3, 0)
    (figure,) = evidence.figures  # and none that is counted
    assert figure.name == "step_time[fp32] step_s"
    assert (figure.runs, figure.nights, figure.pairs) == (3, None, None)
    assert figure.within == pytest.approx(0.003, rel=0.3)
    assert figure.guessed
    assert figure.pair_s == pytest.approx(1 + 6 * 0.5)


def test_a_history_tells_of_nights_and_of_pairs(suite: Path) -> None:
    history = suite.parent / "history"
    for number in range(40):
        # A night is another day, and from the 20th on the step takes a tenth longer.
        write(history / f"{number}.json", 3 + number, noisy(0.02) * (1 + 0.1 * (number >= 20)))
    turns = {"restarts": [pair(0.01) for _ in range(40)]}
    confirmation = {"suspected": [], "took_s": 120.0, "turns": turns}
    write(history / "confirmed.json", 50, 0.011, confirmation=confirmation)
    write(
        history / "against.json",
        51,
        0.011,
        against={"restarts": [pair(0.01) for _ in range(40)]},
        section={"against": {"before": {}}},
    )
    (figure,) = known(suite).figures
    assert known(suite).nights == 41
    assert figure.nights == pytest.approx(0.02, rel=0.35)
    assert figure.pairs is not None
    assert figure.pairs.deviation == pytest.approx(0.01 * math.sqrt(2), rel=0.35)
    assert figure.pairs.degrees > 20
    assert figure.guessed is False
    assert figure.pair_s == pytest.approx((3.0 + 1.5 * 0.8) / 2, rel=0.1)


def test_runs_on_a_busy_machine_and_of_another_kind_teach_nothing(suite: Path) -> None:
    history = suite.parent / "history"
    for number in range(8):
        write(history / f"{number}.json", 20 + number, 0.01)
        write(history / f"busy-{number}.json", 3 + number, 0.09, contamination=["a process"])
        write(history / f"other-{number}.json", 3 + number, 0.05, config={"batch_size": 1})
        write(history / f"elsewhere-{number}.json", 3 + number, 0.01, hardware="cpu-b")
    (figure,) = known(suite, HARDWARE).figures
    assert figure.nights == 0
    with pytest.raises(BaselineError, match=r"several hardware \(cpu-a, cpu-b\): choose one with"):
        known(suite)


@pytest.mark.parametrize(
    "turns",
    [
        {"restarts": [{"turns": {}}]},
        {"restarts": 7},
        {"restarts": [pair(0.01) | {"turns": {"step_s": {"order": "A", "blocks": []}}}]},
        {"restarts": [pair(0.01) | {"turns": {"step_s": {"order": "XY", "blocks": [block(1)]}}}]},
        {},
    ],
    ids=["cut-short", "no-list", "no-blocks", "other-letters", "nothing"],
)
def test_pairs_that_cannot_be_read_are_left_out(suite: Path, turns: dict[str, Any]) -> None:
    confirmation = {"suspected": [], "took_s": 1.0, "turns": turns}
    write(suite.parent / "history" / "a.json", 9, 0.01, confirmation=confirmation)
    (figure,) = known(suite).figures
    assert figure.pairs is None


def test_gates_that_no_run_has_evaluated_are_named(suite: Path) -> None:
    history = suite.parent / "history"
    said = [
        verdict("compare step_s", "INCONCLUSIVE", "too noisy to say"),
        verdict("loader", "NOT GATED", "no threshold is set"),
        verdict("amp_speedup", "PASS"),
    ]
    write(history / "1.json", 9, 0.01, verdicts=said)
    never = known(suite).never
    assert never[:3] == [
        "step_time[fp32] compare step_s: always INCONCLUSIVE (too noisy to say)",
        "step_time[fp32] loader: always NOT GATED (no threshold is set)",
        "step_time[fp32] step_s: always NOT GATED (a reason)",
    ]
    assert never[3].startswith("in no run: ")
    assert "against" in never[3]
    assert "amp_speedup" not in "".join(never)
    # Once it was compared, that the figure alone is not gated says nothing.
    write(history / "2.json", 10, 0.01, verdicts=[verdict("compare step_s", "PASS")])
    assert not [line for line in known(suite).never if "step_s" in line]


def test_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="nothing is known: no run is promoted in"):
        known(tmp_path / "benchmarks")
    with pytest.raises(BaselineError, match="nothing is known of cpu-b: "):
        known(tmp_path / "benchmarks", "cpu-b")


def test_the_command_advises_and_writes(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = suite.parent / "history"
    history.mkdir()
    (history / "bad.json").write_text("{", encoding="utf-8")
    asked = ["advise", str(history), f"--suite={suite}", "--margin=0.03"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"skipped: {history / 'bad.json'}: not valid JSON")
    head, figure, *lines = out.splitlines()
    assert head == f"{HARDWARE}: 3 promoted runs, 0 nights; 60 s to confirm what is suspected"
    assert figure == "step_time[fp32] step_s"
    assert "% between processes" in lines[0]
    assert "(supposed, since no two took turns yet), perhaps 4.0 s each; 12 of them" in lines[1]
    assert "red once in 1,000 or less" in lines[2]
    assert lines[3].startswith("  margin 3.0% would take ")
    assert not (suite / "thresholds.toml").exists()
    assert main([*asked, "--write"]) == 0
    shown = capsys.readouterr().out.partition("\n\n")[2].partition("\n\nwrote")[0]
    assert tomllib.loads(shown) == tomllib.loads((suite / "thresholds.toml").read_text())
    assert main(["advise", str(history), f"--suite={suite / 'gone'}"]) == 1
    assert capsys.readouterr().err.startswith("perfsuite: nothing is known: ")


def test_one_promoted_run_is_told_to_be_few(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        (suite / "baselines" / HARDWARE / f"{number}.json").unlink()
    assert main(["advise", f"--suite={suite}", str(suite.parent / "history")]) == 0
    assert "fewer than 3 runs are promoted" in capsys.readouterr().out


TABLE = {"compare": {"margin": 0.07, "assumed_spread": 0.02}, "against": {"margin": 0.04}}
FULL = """\
# Why this file is here.
[defaults]
warn = ["loader"]  # since it is shared

[hardware."cpu-*".compare]
margin = 0.3  # for now
{}
[hardware."nvidia-*".memory]
# Weights stay fp32.
max_peak_ratio = 1.0
"""
OURS = """
[hardware."cpu-a".compare]
# A comment of its own.
confidence = 0.98
margin = 0.2  # and beside it
"""


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# nothing\n",
        FULL.format(""),
        FULL.format(OURS),
        "[hardware]\ncpu-a = {compare = {margin = 0.3}}\n",
        '[hardware."cpu-a"]\nwarn = []\n[defaults.memory]\nmax_peak_ratio = 1.0\n[hardware.x]\n',
    ],
    ids=["empty", "a-comment", "other-hardware", "this-hardware", "inline", "in-parts"],
)
def test_a_table_is_written_and_all_else_stays(tmp_path: Path, before: str) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text(before, encoding="utf-8")
    write_table(path, HARDWARE, TABLE)
    after = path.read_text(encoding="utf-8")
    found = load_thresholds(path, HARDWARE)
    assert (found.compare.margin, found.compare.assumed_spread) == (0.07, 0.02)
    assert found.against.margin == 0.04
    expected = tomllib.loads(before)
    ours = expected.setdefault("hardware", {}).setdefault(HARDWARE, {})
    for name, keys in TABLE.items():
        ours[name] = ours.get(name, {}) | keys
    assert tomllib.loads(after) == expected
    comments = [line[line.index("#") :] for line in before.splitlines() if "#" in line]
    assert [each for each in comments if each not in after] == []
    write_table(path, HARDWARE, TABLE)
    assert path.read_text(encoding="utf-8") == after
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("[defaults", "cannot be read"),
        ("[defaults.compare]\nmargni = 1\n", "unknown field `margni`"),
        ('[hardware]\ncpu-a.warn = ["compare"]\n', "cannot be added to as it is written: do so by"),
        (OURS + '[hardware."cpu-*".compare]\nmargin = 0.3\n', r"overlays compare\.margin: move"),
    ],
    ids=["no-toml", "invalid", "dotted", "overlaid"],
)
def test_a_file_that_it_would_not_help_stays_as_it_is(
    tmp_path: Path, before: str, why: str
) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text(before, encoding="utf-8")
    with pytest.raises(ThresholdsError, match=why) as caught:
        write_table(path, HARDWARE, TABLE)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]
