"""Two models that take turns, as in a GAN, are no fault; what is left from a step before is."""

import pytest
import torch
from probing import CPU, red
from torch import Tensor, nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.probes.gradients import fresh_gradients
from perfsuite.probes.optimizer import sgd_canary
from perfsuite.probes.probe import MakeArm
from perfsuite.training.workload import Training, Workload


def adversaries(
    *, clears: str, set_to_none: bool = True, accepts: dict[str, str] | None = None
) -> MakeArm:
    """Return arms of two adversaries, of which those named are cleared before their own turn."""

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        maker, judge = nn.Linear(4, 2).to(device), nn.Linear(2, 1).to(device)
        by_maker, by_judge = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (maker, judge))

        def step(real: Tensor) -> Tensor:
            if "judge" in clears:
                by_judge.zero_grad(set_to_none=set_to_none)
            fake = maker(real.repeat(1, 2))
            loss_judge = (judge(fake.detach()) - judge(real)).tanh().mean()
            loss_judge.backward()
            by_judge.step()
            if "maker" in clears:
                by_maker.zero_grad(set_to_none=set_to_none)
            loss_maker: Tensor = -judge(fake).mean()
            loss_maker.backward()
            by_maker.step()
            return -loss_maker.detach()  # what both share does not fall while they learn

        state = [maker, judge, by_maker, by_judge]
        return Training(step=step, batches=[], state=state, accepts=accepts or {})

    workload = Workload(name="adversaries", make=make)
    return lambda precision: workload.arm(precision, CPU)


BATCH = torch.linspace(-1, 1, 32).reshape(16, 2)


def test_each_of_two_may_be_cleared_in_its_own_turn() -> None:
    verdict = fresh_gradients(adversaries(clears="judge, maker"), Precision.fp32, BATCH)
    assert verdict.outcome is Outcome.PASS, str(verdict)


@pytest.mark.parametrize("cleared", ["judge", "maker"])
def test_gradients_of_either_that_are_left_are_seen(cleared: str) -> None:
    verdict = fresh_gradients(adversaries(clears=cleared), Precision.fp32, BATCH)
    assert red(verdict, "left from the step before")


def test_zeros_in_place_of_gradients_are_seen() -> None:
    made = adversaries(clears="judge, maker", set_to_none=False)
    assert red(fresh_gradients(made, Precision.fp32, BATCH), "zeroed, not freed")


def test_the_loss_of_two_optimizers_need_not_fall() -> None:
    verdict = sgd_canary(adversaries(clears="judge, maker"), Precision.bf16, BATCH)
    assert verdict.outcome is Outcome.NOT_GATED, str(verdict)
    assert "the loss of 2 optimizers need not fall" in verdict.reason


def test_what_a_training_accepts_is_shown_and_not_gated() -> None:
    left = "gradients are left from the step before"
    verdict = fresh_gradients(
        adversaries(clears="judge", accepts={left: "on purpose"}), Precision.fp32, BATCH
    )
    assert verdict.outcome is Outcome.NOT_GATED
    assert (verdict.figure, verdict.reason) == (left, "on purpose")
