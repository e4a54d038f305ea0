"""What a session leaves in pytest-benchmark's statistics and in the run's JSON."""

import os
import re
import subprocess
import sys

import pytest
import torch
from suites import HARDWARE, Suite, load, timed

from perfsuite.devices.cpu import Cpu


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_the_statistics_are_those_of_the_measured_times(suite: Suite) -> None:
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
def test_the_table_of_pytest_benchmark_is_shown_if_verbose(suite: Suite, option: str) -> None:
    suite.write("test_steps.py", timed("test_a"))
    assert "benchmark: 1 tests" not in suite.run(option).stdout.str()
    wide = suite.run(option, "--benchmark-verbose")
    assert wide.ret == 0
    wide.stdout.fnmatch_lines(["*benchmark: 1 tests*", "test_a *10.0000*", "*= perfsuite =*"])


@pytest.mark.parametrize("frozen", [0, 3], ids=["ours", "of-somebody-else"])
def test_what_was_imported_is_no_garbage_to_look_through(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, frozen: int
) -> None:
    done: list[str] = []
    monkeypatch.setattr("gc.get_freeze_count", lambda: frozen)
    for name in ("freeze", "unfreeze"):
        monkeypatch.setattr(f"gc.{name}", lambda name=name: done.append(name))
    suite.write("test_steps.py", timed("test_a") + "    import gc\n    gc.unfreeze()\n")
    assert suite.run().ret == 0
    assert done == (["unfreeze"] if frozen else ["freeze", "unfreeze", "unfreeze"])


@pytest.mark.slow
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
from itertools import repeat

import torch

from perfsuite.judging.estimates import Estimate
from perfsuite.training.arm import Arm


def test_a(perf):
    arm = Arm(
        precision=Precision.fp32,
        step=lambda batch: batch.sum(),
        batches=repeat(torch.ones(2)),
        device=perf.device,
    )
    perf.warm(arm)
    perf.time(arm, blocks=2)
    perf.metric("step_s", 0.01, unit="s", better="lower")
    perf.gate(at_most("peak_ratio", Estimate.exact(0.5), 1.0))
"""


def test_the_run_holds_figures_verdicts_settings_and_the_machine(suite: Suite) -> None:
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


def test_the_header_says_where_throttling_cannot_be_seen(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write("test_steps.py", timed("test_a"))
    assert "throttling cannot" not in suite.run().stdout.str()
    why = "cannot be seen: NVML: Insufficient Permissions"
    monkeypatch.setattr(Cpu, "versions", lambda _: {"throttling": why})
    suite.run().stdout.fnmatch_lines([f"*({HARDWARE}), torch*", f"throttling {why}"])


SEES = """
def test_sees(perf):
    import os
    perf.timed([0.01])
    perf.keep("visible", os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


@pytest.mark.parametrize(
    ("other", "seen"),
    [("", ""), ("\n\ndef test_other():\n    pass\n", "0")],
    ids=["alone", "mixed"],
)
def test_a_session_on_the_cpu_starts_no_cuda_unless_others_may_want_it(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, other: str, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    suite.write("test_steps.py", SEES + other)
    (entry,) = load(suite.record())["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["raw"]["visible"] == seen
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_state_after_a_benchmark_is_that_of_its_last_block(suite: Suite) -> None:
    suite.write("test_steps.py", MEASURED)
    (entry,) = load(suite.record("--perf-workload=tiny"))["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert record["state"]["after"] == record["raw"]["blocks"][-1]["state"]


def test_numbers_that_json_does_not_have_become_null(suite: Suite) -> None:
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
