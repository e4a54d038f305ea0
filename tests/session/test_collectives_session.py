"""The benchmark that counts collectives: a gather too many is red, and says where."""

from pathlib import Path

import pytest
from suites import Suite

from perfsuite.measuring import fake_ranks
from perfsuite.records.ledgers import accept

CONFTEST = """
import perfsuite
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard


@perfsuite.workload(name="sharded", data="ones")
def training(precision, device, seed):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    if dist.is_initialized():
        for layer in (*model, model):
            fully_shard(layer)
    optimizer = torch.optim.SGD(model.parameters())

    def step(batch):
        optimizer.zero_grad()
        loss = model(batch).sum()
        loss.backward()
        optimizer.step()
        return loss

    return perfsuite.Training(step=step, batches=[torch.ones(2, 8)], state=[model, optimizer])
"""
GATHERED_AGAIN = CONFTEST.replace(
    "        loss.backward()\n", "        model[0].unshard()\n        loss.backward()\n"
)
COUNTED = "from perfsuite.benchmarks.collectives import test_collectives\n"
FP32 = "-kfp32"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("conftest.py", CONFTEST)
    suite.write("test_counted.py", COUNTED)
    return suite


def accepted(suite: Suite) -> Path:
    (path,) = accept([suite.record(FP32)], suite.folder)
    return path


def test_a_gather_too_many_is_red_and_what_was_accepted_is_green(suite: Suite) -> None:
    lines = accepted(suite).read_text().splitlines()
    assert '"forward: all_gather float32" = 2' in lines
    assert '"ranks" = "8, 64, 512"' in lines
    suite.run(FP32).assert_outcomes(passed=1)
    suite.write("conftest.py", GATHERED_AGAIN)
    result = suite.run(FP32)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*+1 between: all_gather float32 (0 -> 1): conftest.py:*: model[[]0[]].unshard()*"]
    )


def test_a_torch_without_fake_groups_is_not_gated(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(fake_ranks, "import_module", gone)
    result = suite.run(FP32)
    result.assert_outcomes(passed=1)
    text = " ".join(result.stdout.str().split())
    assert "NOT GATED" in text
    assert "has no fake process group" in text
