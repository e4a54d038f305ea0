"""What a compiled step comes to: breaks and recompilations are found, with line and cause."""

from collections.abc import Callable
from functools import cache
from itertools import repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perfsuite import Arm, count_step
from perfsuite.judging.counts import Ledger, judge
from perfsuite.judging.gates import Outcome
from perfsuite.measuring.scripted_run import BREAKS, GIVEN_UP, GRAPHS, count_compilation
from perfsuite.training.snapshot import parts_of

FURTHER = "compiler: compilations in further steps"
OTHER_SIZES = "compiler: compilations at other batch sizes"
EVALUATION = "compiler: compilations in evaluation mode"
AGAIN = "compiler: compilations in a second epoch"


class Net(nn.Module):
    """A healthy one: a graph, one more for sizes that change, one more for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.1)

    def forward(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.drop(self.between(self.layer(batch))).sum()
        return loss

    def between(self, hidden: Tensor) -> Tensor:
        return hidden * 2


class Printing(Net):
    def between(self, hidden: Tensor) -> Tensor:
        print("once a step")
        return hidden * 2


class ReadsItsLoss(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden * 2 if hidden.sum().item() > 0 else hidden * 3


class Counting(Net):
    """Its attribute changes in each step, and a compiler takes it for a constant."""

    taken: int = 0

    def between(self, hidden: Tensor) -> Tensor:
        self.taken += 1
        return hidden * self.taken


class CountingInATensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.taken = nn.Buffer(torch.zeros(()))

    def between(self, hidden: Tensor) -> Tensor:
        return hidden * self.taken.add_(1)


class UnrolledBySample(Net):
    """Its loop is unrolled, for each number of samples anew."""

    def between(self, hidden: Tensor) -> Tensor:
        return torch.stack([hidden[index] * 2 for index in range(len(hidden))])


def counted(net: nn.Module, samples: int = 8, **options: Any) -> Ledger:
    return count_compilation(arm_of(net, torch.compile(net, **options), samples))


def arm_of(net: nn.Module, called: Callable[..., Any], samples: int = 8) -> Arm:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def step(batch: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = called(batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Arm(
        step=step,
        batches=repeat(torch.ones(samples, 4)),
        device=torch.device("cpu"),
        parts=parts_of([net, optimizer]),
    )


@cache
def counted_of(kind: type[Net]) -> Ledger:
    return counted(kind())


@pytest.fixture(scope="module")
def healthy() -> Ledger:
    return counted_of(Net)


def test_a_healthy_step_is_a_graph_and_what_other_sizes_and_evaluation_add(healthy: Ledger) -> None:
    expected = {GRAPHS: 1, BREAKS: 0, GIVEN_UP: 0}
    assert healthy.counts == {**expected, FURTHER: 0, OTHER_SIZES: 1, EVALUATION: 1, AGAIN: 0}
    assert healthy.about == {"compiled for batches of": "8, 4, 5"}


PLANTED = {
    "a print": (Printing, BREAKS, 'print("once a step")', "print"),
    "a value that is read": (
        ReadsItsLoss,
        BREAKS,
        "return hidden * 2 if hidden.sum().item()",
        ".item()",
    ),
    "an attribute that counts": (Counting, FURTHER, "self.taken += 1", "guard: self.taken == 1"),
    "a loop over samples": (
        UnrolledBySample,
        OTHER_SIZES,
        "return torch.stack([hidden[index] * 2 for index in range(len(hidden))])",
        "guard: tensor 'batch' size mismatch at index 0. expected 4, actual 5",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_is_planted_is_red_with_its_line_and_its_cause(case: str, healthy: Ledger) -> None:
    kind, name, line, cause = PLANTED[case]
    verdict, lines = judge(healthy, counted_of(kind), as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    told = [each for each in lines if name in each and f": {line}" in each and cause in each]
    assert told, "\n".join(lines)
    assert "test_scripted_run.py:" in told[0]


def test_what_is_better_is_red_too_until_it_is_accepted(healthy: Ledger) -> None:
    verdict, lines = judge(counted_of(Printing), healthy, as_in="as before")
    assert verdict.outcome is Outcome.FAIL
    assert any("-1 compiler: graph breaks (1 -> 0): was " in each for each in lines)


@pytest.mark.parametrize(
    "twin", [CountingInATensor(), nn.Sequential(Net())], ids=["in a tensor", "wrapped"]
)
def test_a_healthy_twin_is_green(twin: nn.Module, healthy: Ledger) -> None:
    verdict, lines = judge(healthy, counted(twin), as_in="as before")
    assert (verdict.outcome, lines) == (Outcome.PASS, [])


def test_a_frame_that_torch_gives_up_is_told() -> None:
    ledger = counted_of(Counting)
    assert ledger.counts[GIVEN_UP] == 1
    (site,) = ledger.sites[GIVEN_UP]
    assert "self.taken += 1 (Dynamo recompile limit exceeded)" in site


def test_sizes_are_fewer_samples_or_more_where_there_are_few() -> None:
    assert counted(Net(), samples=2).about == {"compiled for batches of": "2, 4, 5"}


def test_a_step_without_a_batch_of_samples_is_compiled_for_one() -> None:
    called = torch.compile(torch.cos)
    arm = Arm(
        step=lambda _: called(torch.ones(())), batches=repeat(None), device=torch.device("cpu")
    )
    ledger = count_compilation(arm)
    assert ledger.about == {"compiled for batches of": "one"}
    assert ledger.counts[GRAPHS] == 1
    assert OTHER_SIZES not in ledger.counts


def test_a_step_that_compiles_nothing_has_no_such_counts() -> None:
    net = Net()
    torch.compile(net)
    assert count_compilation(arm_of(net, net)) == Ledger()


class OfItsBatchAlone(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden + torch.ones(8, 4)


class OtherInEvaluation(Net):
    def between(self, hidden: Tensor) -> Tensor:
        return hidden * 2 if self.training else hidden.detach()


@pytest.mark.parametrize(
    ("net", "part", "error"),
    [
        (OfItsBatchAlone(), "at other batch sizes", "TorchRuntimeError: RuntimeError when"),
        (OtherInEvaluation(), "in evaluation mode", "RuntimeError: element 0 of tensors does not"),
    ],
    ids=["sizes", "evaluation"],
)
def test_a_part_that_the_step_cannot_run_is_told_and_not_counted(
    net: Net, part: str, error: str
) -> None:
    ledger = counted(net)
    assert error in ledger.about[f"not counted {part}"]
    assert f"compiler: compilations {part}" not in ledger.counts
    assert (ledger.counts[FURTHER], ledger.counts[AGAIN]) == (0, 0)


def test_a_step_that_cannot_go_on_is_an_error() -> None:
    class Ending(Counting):
        def between(self, hidden: Tensor) -> Tensor:
            assert self.taken < 2
            return super().between(hidden)

    with pytest.raises(AssertionError):
        counted(Ending())


def test_modes_of_modules_are_as_before() -> None:
    net = Net()
    net.drop.eval()
    count_compilation(arm_of(net, torch.compile(net)))
    assert (net.training, net.drop.training, net.layer.training) == (True, False, True)


def test_whatever_compiles_the_counts_are_the_same(healthy: Ledger) -> None:
    def broken(*_: Any) -> Any:
        raise AssertionError("it compiles nothing while it is counted")

    assert counted(Net(), backend=broken) == healthy


def test_counts_are_part_of_the_ledger_of_a_step() -> None:
    net = Net()
    plain = count_step(arm_of(net, net)).counts
    compiled = count_step(arm_of(net, torch.compile(net))).counts
    assert {name: n for name, n in compiled.items() if not name.startswith("compiler:")} == plain
    assert compiled[GRAPHS] == 1


@pytest.mark.parametrize("private", ["get_compilation_metrics", "graph_break_reasons"])
def test_what_is_unknown_is_told_as_unknown(private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = counted_of(Printing)
    monkeypatch.delattr(f"torch._dynamo.utils.{private}")
    found = counted(Printing())
    assert found.counts[GRAPHS] == ledger.counts[GRAPHS]
    assert found.counts[OTHER_SIZES] == ledger.counts[OTHER_SIZES]
