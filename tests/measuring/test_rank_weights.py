"""Weights that ranks hold: compared by hashes, and named where one rank has others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import perfsuite
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.measuring.rank_weights import RankWeights, blamed, differences_of_ranks, hash_of
from perfsuite.training.arm import Arm

CPU = torch.device("cpu")
LAUNCHED = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pytest")


class Scripted(Ranks):
    """Rank 0 of several, whose others have these hashes of weights."""

    def __init__(self, *others: dict[str, str]) -> None:
        super().__init__(Seat(ranks=1 + len(others), local_ranks=1 + len(others)))
        self._others = others

    def each(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [value, *self._others]
        if value is None:  # nothing stands in the way of a look
            return [value] * len(self)
        return [value, *("another" for _ in self._others)]


def weights() -> dict[str, torch.Tensor]:
    return {"0.weight": torch.ones(2, 2), "0.bias": torch.zeros(2)}


def hashes(other: dict[str, str] | None = None) -> dict[str, str]:
    return {name: hash_of(tensor) for name, tensor in weights().items()} | (other or {})


def test_those_that_differ_are_named_with_their_ranks() -> None:
    others = Scripted(hashes(), hashes({"0.bias": "x"}), hashes({"0.bias": "y"}))
    told = {"0.bias": "0.bias of ranks 2, 3 is not rank 0's"}
    assert differences_of_ranks(weights(), others.each) == told
    many = Scripted(*[{}] * 10)
    ranks = "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 2 more"
    told = {name: f"{name} of {ranks} is not rank 0's" for name in ("0.weight", "0.bias")}
    assert differences_of_ranks(weights(), many.each) == told
    more = Scripted(hashes({"1.weight": "x"}))
    told = {"1.weight": "1.weight of rank 1 is not rank 0's"}
    assert differences_of_ranks(weights(), more.each) == told
    assert differences_of_ranks(weights(), Ranks().each) == {}


def test_what_is_accepted_hides_nothing_that_is_not() -> None:
    differing = {"a": "a of rank 1 is not rank 0's", "b": "b of rank 1 is not rank 0's"}
    assert blamed(differing, {}) == "a"
    assert blamed(differing, {"a": "meant"}) == "b"
    assert blamed(differing, {differing["a"]: "meant"}) == "b"
    assert blamed(differing, {"a": "meant", "b": "meant"}) == "a"
    assert blamed({}, {"a": "meant"}) is None


def test_a_hash_tells_bits_shapes_and_dtypes_apart() -> None:
    alike = [hash_of(torch.ones(4, dtype=torch.bfloat16)) for _ in range(2)]
    others = [
        torch.ones(4),
        torch.ones(2, 2, dtype=torch.bfloat16),
        torch.tensor([1.0, 1, 1, 1 + 2**-7]),
    ]
    assert len({*alike, *map(hash_of, others), hash_of([torch.ones(4), torch.ones(4)])}) == 5
    assert hash_of(torch.tensor(0.0)) != hash_of(torch.tensor(-0.0))  # bit for bit


def arm_of(*models: nn.Module, **about: Any) -> Arm:
    parts = {str(index): model for index, model in enumerate(models)}
    return Arm(step=float, batches=iter(()), device=CPU, parts=parts, **about)


def said(ranks: Ranks, *arms: Arm) -> list[str]:
    found = RankWeights(ranks)
    found.look_at(*map(found.watched, arms))
    return [str(verdict).partition(";")[0] for verdict in found.verdicts()]


def test_one_verdict_tells_the_worst_of_all_arms() -> None:
    linear, other = nn.Linear(2, 2), Scripted({"weight": "x"})
    red = "FAIL weights_equal: fp32: weight of rank 1 is not rank 0's"
    assert said(other, arm_of(), arm_of(linear)) == [red]
    assert said(other, arm_of()) == [
        "NOT GATED weights_equal: not looked at (add the model to `state` of perfsuite.Training)"
    ]
    bias = "FAIL weights_equal: fp32: bias of rank 1 is not rank 0's"
    for word in ("weight of rank 1 is not rank 0's", "weight"):
        assert said(other, arm_of(linear, accepts={word: "experts"})) == [bias]
        meant = arm_of(linear, accepts={word: "experts", "bias": "experts"})
        assert said(other, meant) == [
            "NOT GATED weights_equal: weight of rank 1 is not rank 0's (experts)"
        ]
    assert said(Ranks(), arm_of(linear)) == []


class Sharding(Ranks):
    """Two ranks, of which the other one has nothing to compare."""

    def __init__(self) -> None:
        super().__init__(Seat(ranks=2, local_ranks=2))

    def each(self, value: Any) -> list[Any]:
        assert value is None  # it would not come to another meeting
        return [value, "all weights are sharded"]


def test_no_rank_looks_at_what_another_cannot() -> None:
    assert said(Sharding(), arm_of(nn.Linear(2, 2))) == [
        "NOT GATED weights_equal: not looked at (all weights are sharded)"
    ]


MODULE = """
import perfsuite
import torch
from perfsuite import Precision, TrainStep, Training


class Step(TrainStep):
    def __call__(self, batch):
        loss = super().__call__(batch)
        with torch.no_grad():
            self.model.module.bias.add_({drift} * torch.distributed.get_rank())
        return loss


@perfsuite.workload(name="two ranks", data="own")
def workload(precision, device, seed):
    model = torch.nn.Linear(4, 2)
    step = Step(model, torch.optim.SGD(model.parameters()), precision=precision, parallel="ddp")
    batches = [(torch.ones(8, 4) + torch.distributed.get_rank(), torch.zeros(8, dtype=torch.long))]
    return Training(step=step, batches=batches, state=[step.model, step.optimizer])


def test_it(perf):
    perf.time(perf.arm(Precision.fp32), blocks=2)
    perf.metric("one", 1.0, unit="1", better="lower")
"""


@pytest.mark.slow
def test_a_benchmark_whose_ranks_drift_apart_is_red_and_another_is_not(tmp_path: Path) -> None:
    for name, drift in (("healthy", "0.0"), ("drifting", "1e-6")):
        text = MODULE.replace("{drift}", drift)
        (tmp_path / f"test_{name}.py").write_text(text, encoding="utf-8")
    root = str(Path(perfsuite.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, *LAUNCHED, "--benchmark-json=run.json", "-q", "--perf-device=cpu"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "FAIL weights_equal: fp32: module.bias of rank 1 is not rank 0's" in ran.stdout
    benchmarks = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["benchmarks"]
    assert len(benchmarks) == 2
