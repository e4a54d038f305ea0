"""Fresh processes that take a first step, cold and warm, with inductor; and one that cannot."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from suites import Suite, load

from perfsuite.session.fresh_process import in_fresh_process
from perfsuite.training.batches import TrainingError

pytestmark = pytest.mark.slow

BENCHMARK = "from perfsuite.benchmarks.compilation import test_compilation\n"
CONFTEST = """
import perfsuite
import torch
from torch import nn


@perfsuite.workload("small", learnable=False)
def small(precision, device, seed):
    model = nn.Linear(4, 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = perfsuite.TrainStep(model, optimizer, precision=precision, backend="inductor")
    batches = [(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))]
    return perfsuite.Training(step=step, batches=batches, state=[model, optimizer, step.scaler])
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    return Suite(pytester, monkeypatch)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_second_process_finds_what_the_first_one_compiled(suite: Suite) -> None:
    suite.write("conftest.py", CONFTEST)
    suite.write("test_compilation.py", BENCHMARK)
    path = suite.folder / "run.json"
    # In a process of its own: what compiles cannot be imported a second time.
    arguments = "test_compilation.py", "--perf-device=cpu", f"--benchmark-json={path}"
    assert suite.pytester.runpytest_subprocess(*arguments).ret == 0
    record = load(path)["benchmarks"][0]["extra_info"]["perfsuite"]
    steps = record["raw"]["first_steps"]
    assert (steps["cold"]["hits"], steps["cold"]["misses"]) == (0, 2)  # forward and backward
    assert (steps["warm"]["hits"], steps["warm"]["misses"]) == (2, 0)
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in record["verdicts"]}
    assert outcomes == {
        "first_step": "NOT GATED",
        "compile_cache": "PASS",
        "probe compiled_step": "PASS",
    }


def test_a_process_that_fails_says_why(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the environment asks of the session is not asked of the process: it would fail of this.
    monkeypatch.setenv("PYTEST_ADDOPTS", "--unheard-of")
    gone: Any = SimpleNamespace(
        config=request.config, nodeid="test_gone.py::test_a", path=tmp_path / "test_gone.py"
    )
    with pytest.raises(TrainingError, match="could not take the first step") as raised:
        in_fresh_process(gone, {})
    assert "not found" in str(raised.value)
    assert "\n" not in str(raised.value)
