"""A session on a simulated card says so in all that it leaves, and is never promoted."""

import re
from collections.abc import Iterator

import pytest
from suites import Suite

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


@pytest.mark.slow
def test_a_simulated_session_says_so_in_all_that_it_leaves_and_is_never_promoted(
    suite: Suite,
) -> None:
    suite.write("conftest.py", CONFTEST)
    suite.write("test_speed.py", "from perfsuite.benchmarks import test_amp_speedup\n")
    suite.write("thresholds.toml", THRESHOLDS)
    report = suite.folder / "report"
    options = ("--perf-device=simulated:h100", f"--perf-report={report}", "--perf-budget=1")
    shown = suite.run(*options, "-k", "vs-fp32").stdout.str()
    assert "SIMULATED: no figure here was measured" in shown
    assert "(simulated-nvidia-h100-80gb-hbm3-x1)" in shown
    for name in ("report.html", "report.md"):
        assert "simulated: nothing was measured" in re.sub(r"\\", "", (report / name).read_text())
    run = read_run(report / "run.json")
    assert run.simulated
    # It is held to the thresholds of what it stands for: so small a step waits for its host.
    told = {
        key: verdict.shown
        for key, each in run.benchmarks.items()
        for verdict in each.verdicts
        if verdict.gate == "amp_speedup"
    }
    assert told == {
        "test_speed.py::test_amp_speedup[fp16-vs-fp32]": "FAIL",
        "test_speed.py::test_amp_speedup[bf16-vs-fp32]": "NOT GATED",
    }
    with pytest.raises(BaselineError, match="refused: its device was simulated"):
        suite.promote(report / "run.json")
    assert not (suite.folder / "baselines").exists()
