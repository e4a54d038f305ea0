"""A session on a simulated card says so in all that it leaves, and is never promoted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from suites import HARDWARE, Suite

from perfsuite.devices.choice import choose_device
from perfsuite.records.baseline import BaselineError
from perfsuite.records.schema import read_run

CONFTEST = """
import pytest
import torch
from perfsuite import Training, Workload


def make(precision, device, seed):
    model = torch.nn.Linear(8, 8).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(batch):
        with precision.autocast(device):
            loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return Training(step=step, batches=[torch.ones(4, 8)], state=[model, optimizer])


@pytest.fixture(scope="session")
def workload():
    return Workload(name="line", make=make, block_steps=2)
"""
SPEED = """
from perfsuite.benchmarks import test_amp_speedup, test_step_time
"""
THRESHOLDS = """
[hardware."nvidia-*".amp_speedup.min]
fp16-vs-fp32 = 1.3
"""


@pytest.fixture(autouse=True)
def real_devices() -> Iterator[None]:
    yield
    choose_device("cpu")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.fixture
def simulated_run(suite: Suite) -> tuple[pytest.RunResult, Path]:
    suite.write("conftest.py", CONFTEST)
    suite.write("test_speed.py", SPEED)
    suite.write("thresholds.toml", THRESHOLDS)
    result = suite.run("--perf-device=simulated:h100", "--perf-report=report", "--perf-budget=1")
    return result, suite.folder / "report"


def test_header_report_and_run_file_say_simulated(
    simulated_run: tuple[pytest.RunResult, Path],
) -> None:
    result, folder = simulated_run
    shown = result.stdout.str()
    assert "SIMULATED: no figure here was measured" in shown
    assert "simulated-nvidia-h100-80gb-hbm3-x1" in shown
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "simulated: nothing was measured" in text
    run = read_run(folder / "run.json")
    assert run.simulated
    assert run.hardware != HARDWARE


def test_a_card_is_held_to_the_thresholds_of_what_it_stands_for(
    simulated_run: tuple[pytest.RunResult, Path],
) -> None:
    _, folder = simulated_run
    verdicts = {
        key: {verdict.gate: verdict for verdict in benchmark.verdicts}
        for key, benchmark in read_run(folder / "run.json").benchmarks.items()
    }
    (speedup,) = (v for k, v in verdicts.items() if "speedup[fp16-vs-fp32]" in k)
    assert speedup["amp_speedup"].shown == "FAIL"  # so small a step waits for its host
    (ungated,) = (v for k, v in verdicts.items() if "speedup[bf16-vs-fp32]" in k)
    assert ungated["amp_speedup"].shown == "NOT GATED"


def test_a_simulated_run_is_never_promoted(
    suite: Suite, simulated_run: tuple[pytest.RunResult, Path]
) -> None:
    _, folder = simulated_run
    with pytest.raises(BaselineError, match="refused: its device was simulated"):
        suite.promote(folder / "run.json")
    assert not (suite.folder / "baselines").exists()
