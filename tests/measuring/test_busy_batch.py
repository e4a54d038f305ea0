"""The batch is doubled on a simulated device until that is the limit, or its memory ends."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import FakeTime
from suites import Suite, load

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.precision import Precision
from perfsuite.measuring.busy_batch import MOST_DOUBLINGS, busy_doublings, doublings_until_busy
from perfsuite.training.arm import Arm
from perfsuite.training.batches import endless

LAUNCHES = 10


def arms(device: FakeTime, sample_s: float, *, most: int = 10**9) -> Callable[[int], list[Arm]]:
    """Return what makes an arm, of batches of 8, whose kernels take so long a sample."""

    def step(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most:
            raise torch.OutOfMemoryError("out of memory\nmore of it")
        for _ in range(LAUNCHES):
            device.launch(len(batch) * sample_s)
        return batch.sum()

    arm = Arm(step=step, batches=endless([torch.ones(8, 2)]), device=torch.device("cpu"))
    return lambda doublings: [arm.enlarged(doublings)]


@pytest.mark.parametrize(
    ("sample_s", "doublings"), [(1e-3, 0), (1e-4, 1), (2.5e-5, 3), (1e-9, MOST_DOUBLINGS)]
)
def test_the_batch_is_doubled_until_the_device_is_the_limit(
    sample_s: float, doublings: int
) -> None:
    """A launch takes 1 ms: kernels of 8 samples take 8, 0.8, 0.2 and nearly 0 ms."""
    device = FakeTime(launch_s=1e-3)
    found, why = doublings_until_busy(arms(device, sample_s), device)
    assert found == doublings
    assert bool(why) is (doublings == MOST_DOUBLINGS)


def test_a_full_queue_is_no_slow_host() -> None:
    device = FakeTime(launch_s=1e-3, queue_depth=2)
    assert doublings_until_busy(arms(device, 1e-3), device) == (0, "")


def test_where_memory_ends_the_largest_batch_that_fits_is_taken() -> None:
    device = FakeTime(launch_s=1e-3)
    found = doublings_until_busy(arms(device, 1e-9, most=20), device)
    assert found == (1, "a batch x4 failed: out of memory")


def test_a_training_that_fails_at_its_own_batch_is_no_search() -> None:
    device = FakeTime(launch_s=1e-3)
    with pytest.raises(torch.OutOfMemoryError):
        doublings_until_busy(arms(device, 1e-9, most=1), device)


@pytest.mark.parametrize("promoted", [{}, {"doublings": 3}], ids=["none", "promoted"])
def test_the_batch_of_promoted_runs_is_kept(promoted: dict[str, int]) -> None:
    device = FakeTime(launch_s=1e-3)
    (arm,) = arms(device, 1e-4)(0)
    noted: dict[str, int] = {}
    perf: Any = SimpleNamespace(
        machine=SimpleNamespace(device=device),
        promoted=promoted,
        progress=lambda _: lambda *_: None,
        fresh=lambda _: arm,
        configure=noted.update,
    )
    found = promoted.get("doublings", 1)
    assert busy_doublings(perf, Precision.bf16) == found
    assert noted == {"doublings": found}


def test_on_a_cpu_no_batch_is_doubled_and_nothing_noted() -> None:
    perf: Any = SimpleNamespace(machine=SimpleNamespace(device=Cpu()))
    assert busy_doublings(perf, Precision.bf16) == 0


CONFTEST = """
from dataclasses import replace

from fakes import FakeTime

from perfsuite.measuring.machine import machine
from perfsuite.session.stash import MACHINE


def pytest_configure(config):
    config.stash[MACHINE] = replace(machine("cpu"), device=FakeTime(launch_s=1e-3))
"""

BENCHMARKS = """
import pytest
import torch

import perfsuite
from perfsuite import Precision
from perfsuite.benchmarks import amp_speedup, step_time

FP32, BF16 = Precision.fp32, Precision.bf16


@pytest.fixture
def launches(perf):
    def make(precision, *_):
        sample_s = 5e-5 if precision == "bf16" else 1e-4

        def step(batch):
            for _ in range(10):
                perf.machine.device.launch(len(batch) * sample_s)
            return batch.mean()

        return perfsuite.Training(step=step, batches=[torch.ones(8, 2)], state=[])

    perf.workload = perfsuite.Workload(name="launches", make=make)
    return perf


@pytest.mark.one_tree
def test_speedup(launches):
    amp_speedup.test_amp_speedup(launches, BF16, FP32)


def test_step(launches):
    step_time.test_step_time(launches, BF16)
"""


def test_a_speedup_is_gated_where_the_device_is_busy_and_kernels_are_a_figure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of bf16 are twice as fast; at its own batch a step takes what launching takes."""
    suite = Suite(pytester, monkeypatch)
    suite.write("conftest.py", CONFTEST)
    suite.write("test_steps.py", BENCHMARKS)
    suite.write("thresholds.toml", "[defaults.amp_speedup.min]\nbf16-vs-fp32 = 1.9\n")
    result = suite.run("--benchmark-json=run.json")
    records = [
        entry["extra_info"]["perfsuite"] for entry in load(suite.folder / "run.json")["benchmarks"]
    ]
    by_name = {each["key"].rpartition("::")[2]: each for each in records}
    speedup, step = by_name["test_speedup"], by_name["test_step"]

    assert speedup["config"]["doublings"] == 2
    told = [(each["gate"], each["word"] or each["outcome"]) for each in speedup["verdicts"]]
    assert told == [
        ("own_batch", "NOT GATED"),
        ("host_bound", "HOST-BOUND"),
        ("amp_speedup", "PASS"),
        ("host_bound", "PASS"),
    ]
    metrics = {name: metric["value"] for name, metric in speedup["metrics"].items()}
    assert metrics["speedup_own_batch"] == pytest.approx(1.0, abs=0.05)
    assert metrics["speedup"] == pytest.approx(2.0, abs=0.05)
    assert (
        "a larger batch, CUDA graphs (graph=True of the training)"
        in speedup["verdicts"][1]["reason"]
    )
    result.stdout.fnmatch_lines(["HOST-BOUND*speedup host_bound*"])

    assert "doublings" not in step["config"]
    assert step["metrics"]["kernel_s"]["value"] == pytest.approx(4e-3)
    assert step["metrics"]["step_s"]["value"] == pytest.approx(1e-2, rel=0.1)
    assert step["raw"]["loads"]["bf16"]["launches"] == 10
    assert [each["gate"] for each in step["verdicts"]] == ["host_bound", "step_s", "kernel_s"]
