"""What a session with our benchmarks ends with: verdicts, the table, and the run's JSON."""

import re
import subprocess
import sys

import pytest
import torch
from suites import HARDWARE, HEAD, Suite, load, timed

from perfsuite.devices.cpu import Cpu
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.session.terminal import verdict_table

# One benchmark for each outcome; the gate is at_most of an estimate about 1.5.
GATED = (
    HEAD
    + """
from perfsuite.judging.gates import at_most
from perfsuite.judging.estimates import Estimate

RATIO = Estimate(value=1.5, low=1.4, high=1.6, confidence=0.99, n=10)


def test_passes(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 2.0))


def test_is_not_gated(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, None))


def test_fails(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 1.0))


def test_straddles(perf):
    measure(perf)
    perf.gate(at_most("peak_ratio", RATIO, 1.5))


def test_shows(perf):
    perf.timed([STEP_S])
    perf.show("epoch  fp32 loss\\n    1    0.1234")
"""
)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fails", "FAIL peak_ratio: 1.500x [[]1.400, 1.600[]], at most 1x"),
        (
            "straddles",
            "INCONCLUSIVE peak_ratio: 1.500x [[]1.400, 1.600[]], at most 1.5x"
            " (the threshold lies inside the interval of 10 values that scatter by 0.0%:"
            " too noisy to say)",
        ),
    ],
    ids=["fail", "inconclusive"],
)
def test_a_red_gate_fails_its_item_with_the_verdict(suite: Suite, name: str, line: str) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run("-k", name)
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines([f"_* test_{name} _*", line, "=* perfsuite =*"])
    assert "Traceback" not in result.stdout.str()


def test_two_red_gates_are_both_named(suite: Suite) -> None:
    second = '    perf.gate(at_most("activation_ratio", RATIO, 1.2))\n'
    suite.write("test_steps.py", GATED.replace("RATIO, 1.0))\n", f"RATIO, 1.0))\n{second}"))
    result = suite.run("-k", "fails")
    result.stdout.fnmatch_lines(["FAIL peak_ratio: *", "FAIL activation_ratio: *"])


def test_a_figure_without_a_threshold_is_shown_as_such(suite: Suite) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run("-k", "gated")
    assert result.ret == 0
    assert re.search(
        r"^NOT GATED  is_not_gated peak_ratio  1\.500x \[1\.400, 1\.600\]\s+no threshold is set$",
        result.stdout.str(),
        re.MULTILINE,
    )
    assert "1 NOT GATED" in result.outlines
    assert "PASS" not in result.stdout.str()


def test_a_figure_without_a_gate_is_shown_until_it_is_compared(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    row = r"^NOT GATED  a step_s  0\.01 s\s+compared with a baseline only$"
    assert re.search(row, suite.run().stdout.str(), re.MULTILINE)
    suite.baseline()
    compared = suite.compare()
    assert "NOT GATED" not in compared.stdout.str()
    assert "1 PASS" in compared.outlines


def test_the_table_has_every_verdict_and_the_worst_first(suite: Suite) -> None:
    suite.write("test_steps.py", GATED)
    result = suite.run()
    assert result.ret == 1
    text = result.stdout.str()
    lines = re.split(r"^=+ perfsuite =+$", text, flags=re.MULTILINE)[1].splitlines()
    assert lines[1].startswith(f"{Cpu().hardware()}, torch ")
    assert lines.index("epoch  fp32 loss") == lines.index("    1    0.1234") - 1
    rows = [line for line in lines if re.match(r"[A-Z][A-Z ]+  \w", line)]
    assert [re.split(r"  +", row)[:2] for row in rows] == [
        ["FAIL", "fails peak_ratio"],
        ["INCONCLUSIVE", "straddles peak_ratio"],
        ["NOT GATED", "is_not_gated peak_ratio"],
        ["PASS", "passes peak_ratio"],
    ]
    assert "1 PASS, 1 FAIL, 1 INCONCLUSIVE, 1 NOT GATED" in lines


@pytest.mark.parametrize("width", [10, 60, 80, 200])
def test_the_table_cuts_nothing(width: int) -> None:
    verdict = Verdict(
        gate="amp_speedup",
        outcome=Outcome.FAIL,
        figure="0.812x [0.801, 0.823]",
        threshold="at least 1.3x",
        reason="fewer than 3 runs: their spread is assumed; promote more",
    )
    passed = Verdict(gate="finite", outcome=Outcome.PASS, figure="finite", threshold="must be")
    key = "test_amp_speedup.py::test_amp_speedup[vs-fp32-fp16]"
    table = verdict_table([("test_a.py::test_a", passed), (key, verdict)], width=width)
    assert [outcome for outcome, _ in table] == [Outcome.FAIL, Outcome.PASS]
    for part in (
        "FAIL",
        "amp_speedup[vs-fp32-fp16]",
        verdict.figure,
        verdict.threshold,
        verdict.reason,
    ):
        assert part in table[0][1]
    assert table[1][1].split() == ["PASS", "a", "finite", "finite", "must", "be"]


def test_no_verdicts_make_no_table() -> None:
    assert verdict_table([]) == []


def test_the_statistics_are_of_the_times_handed_over(suite: Suite) -> None:
    times_s = [0.011, 0.012, 0.016, 0.013, 2.5e-7]
    suite.write("test_steps.py", f"def test_a(perf):\n    perf.timed({times_s})\n")
    document = load(suite.record())
    (entry,) = document["benchmarks"]
    stats = entry["stats"]
    assert (entry["fullname"], entry["name"]) == ("test_steps.py::test_a", "test_a")
    assert stats["data"] == times_s
    assert stats["mean"] == pytest.approx(sum(times_s) / 5, rel=1e-12)
    assert (stats["min"], stats["max"], stats["median"]) == (2.5e-7, 0.016, 0.012)
    assert (stats["rounds"], stats["iterations"]) == (5, 1)


@pytest.mark.parametrize("option", ["--benchmark-columns=mean,rounds", "--benchmark-sort=name"])
def test_the_wide_table_comes_if_asked_for(suite: Suite, option: str) -> None:
    suite.write("test_steps.py", timed("test_a"))
    assert "benchmark: 1 tests" not in suite.run(option).stdout.str()
    wide = suite.run(option, "--benchmark-verbose")
    assert wide.ret == 0
    wide.stdout.fnmatch_lines(["*benchmark: 1 tests*", "test_a *10.0000*", "*= perfsuite =*"])


def test_pytest_benchmark_reads_what_we_save(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a", "test_b"))
    first = suite.record(name="first.json")
    suite.step_s(0.02)
    second = suite.record(name="second.json")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "--columns=mean,rounds"]
    done = subprocess.run(
        [*command, first, second], cwd=suite.folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, mean in (("first", "10.0000"), ("second", "20.0000")):
        for test in ("test_a", "test_b"):
            assert re.search(rf"{test} \S*{name}\S* +{mean}", done.stdout)


MEASURED = """
from perfsuite.judging.gates import at_most
from perfsuite.devices.precision import Precision
from perfsuite.judging.estimates import Estimate
from perfsuite.training.workload import Arm


def test_a(perf):
    arm = Arm(
        precision=Precision.fp32,
        step=lambda images, labels: images.sum(),
        order=perf.digits.batches(2, seed=0),
        restore=lambda: None,
    )
    perf.warm(arm)
    perf.time(arm, blocks=2)
    perf.metric("step_s", 0.01, unit="s", better="lower")
    perf.gate(at_most("peak_ratio", Estimate.exact(0.5), 1.0))
"""


def test_the_run_holds_what_is_known_of_it(suite: Suite) -> None:
    suite.write("test_steps.py", MEASURED)
    suite.commit()
    document = load(suite.record("--perf-workload=tiny"))
    ours = document["perfsuite"]
    assert ours["schema"] == 1
    assert ours["complete"] is True
    assert ours["items"] == {"test_steps.py::test_a": "passed"}
    assert ours["hardware"] == {
        "key": HARDWARE,
        "kind": "cpu",
        "name": Cpu().hardware().name,
        "count": Cpu().hardware().count,
        "memory_bytes": None,
    }
    # A wheel's name may leave out what it was built for.
    assert ours["software"]["torch"] in {torch.__version__, torch.__version__.partition("+")[0]}
    assert ours["software"].keys() >= {"perfsuite", "python", "cuda", "threads"}
    assert ours["options"] == {
        "perf_device": "cpu",
        "perf_workload": "tiny",
        "perf_data": "synthetic",
        "perf_budget": 60.0,
    }
    assert ours["started"] <= ours["finished"]
    assert re.fullmatch("[0-9a-f]{40}", document["commit_info"]["id"])
    assert document["commit_info"]["dirty"] is False

    (entry,) = document["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert record["key"] == "test_steps.py::test_a"
    assert record["metrics"] == {"step_s": {"value": 0.01, "unit": "s", "better": "lower"}}
    assert record["verdicts"] == [
        {
            "gate": "peak_ratio",
            "outcome": "PASS",
            "figure": "0.500x",
            "threshold": "at most 1x",
            "reason": "",
            "word": "",
        }
    ]
    assert record["config"]["blocks"] == 2
    assert len(record["raw"]["blocks"]) == 2
    arm = record["arms"]["fp32"]
    assert arm["precision"] == "fp32"
    assert arm["flags"]
    assert arm["warm_up"]
    assert isinstance(arm["steady"], bool)
    for when in ("before", "after"):
        assert record["state"][when].keys() >= {"load_1min", "cpu_mhz"}


def test_what_json_has_not_is_null(suite: Suite) -> None:
    line = "perf.keep('losses', [0.5, float('nan'), float('inf'), -float('inf')])"
    suite.write("test_steps.py", f"{timed('test_a')}    {line}\n")
    (entry,) = load(suite.record())["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["raw"]["losses"] == [0.5, None, None, None]


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("{(1, 2): 3}", {"(1, 2)": 3}),
        ("{1: 2}", {"1": 2}),
        ("(1, 2)", [1, 2]),
        ("torch.float16", "torch.float16"),
        ("Precision.fp16", "fp16"),
    ],
    ids=["tuple-as-key", "number-as-key", "tuple", "dtype", "precision"],
)
def test_raw_data_of_any_kind_is_kept(suite: Suite, raw: str, kept: object) -> None:
    imports = "import torch\nfrom perfsuite.devices.precision import Precision\n"
    suite.write("test_steps.py", f"{imports}{timed('test_a')}    perf.keep('raw', {raw})\n")
    (entry,) = load(suite.record())["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["raw"]["raw"] == kept
