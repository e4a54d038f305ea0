"""What two ranks do together, as processes that torchrun starts: faults, and their healthy twins.

Started as a program by `probes/test_across_ranks.py`; rank 0 writes what each case said to a file.
"""

import faulthandler
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_trainings import (
    AveragingByHand,
    AveragingTooLate,
    Clipping,
    DividingAgain,
    Drifting,
    NotSynchronising,
    Synchronising,
    batches,
    clipping_by_half,
    maker,
    network,
    of_experts,
    own_buffers,
    own_seeds,
    plain,
    sharded_by_fsdp,
    spread,
    summing,
    tensor_parallel,
)

from perfsuite.devices.choice import choose_device
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import join, leave, ranks
from perfsuite.measuring.memory import activation_bytes_per_sample
from perfsuite.measuring.rank_weights import RankWeights
from perfsuite.probes import across_ranks as across
from perfsuite.probes.probe import Found, MakeArm, Probe, probe, told_by_all
from perfsuite.probes.rank_gradients import gradients_averaged
from perfsuite.probes.registry import probes_here, run_probe
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.parallel import Parallel, is_sharded, local_of
from perfsuite.training.snapshot import difference, states_of
from perfsuite.training.step import TrainStep

GIVE_UP_S = 600
"""After which no rank goes on, whatever it waits for."""


@probe(wanted="both", remedy="none")
def one_leaves(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Ends on one rank before the ranks meet."""
    if dist.get_rank():
        raise NotShownError("there is nothing to see")
    return Found(f"{told_by_all(0)}", good=True)


MEANT = dict.fromkeys(("module.1.running_mean", "module.1.running_var"), "each has its own domain")
HALF_MEANT = {"module.1.running_mean": "each has its own domain"}
FP32, FP16 = Precision.fp32, Precision.fp16
CASES: dict[str, tuple[Probe, Precision, Callable[[Precision], Arm]]] = {
    "drifting": (across.weights_equal, FP32, maker(spread("ddp", Drifting))),
    "own buffers": (across.buffers_equal, FP32, maker(own_buffers)),
    "own buffers, and meant": (across.buffers_equal, FP32, maker(own_buffers, accepts=MEANT)),
    "own buffers, half meant": (
        across.buffers_equal,
        FP32,
        maker(own_buffers, accepts=HALF_MEANT),
    ),
    "buffers under fsdp2": (across.buffers_equal, FP32, maker(spread("fsdp2"))),
    "weights under fsdp": (across.weights_equal, FP32, maker(sharded_by_fsdp)),
    "own seeds": (across.started_alike, FP32, maker(own_seeds)),
    "one seed": (across.started_alike, FP32, maker(plain(AveragingByHand))),
    "same samples": (across.shares_differ, FP32, maker(spread("ddp"), same=True)),
    "no_sync": (gradients_averaged, FP32, maker(spread("ddp", NotSynchronising))),
    "summed": (gradients_averaged, FP32, maker(summing)),
    "of experts": (gradients_averaged, FP32, maker(of_experts)),
    "one leaves": (one_leaves, FP32, maker(of_experts)),
    "clipped": (gradients_averaged, FP32, maker(spread("ddp", Clipping))),
    "clipped by half": (gradients_averaged, FP32, maker(clipping_by_half)),
    "divided twice": (gradients_averaged, FP32, maker(spread("ddp", DividingAgain))),
    "synchronising": (gradients_averaged, FP32, maker(spread("ddp", Synchronising))),
    "same gradients": (gradients_averaged, FP32, maker(spread("ddp"), same=True)),
    "not averaged": (gradients_averaged, FP32, maker(plain(TrainStep))),
    "averaged by hand": (gradients_averaged, FP32, maker(plain(AveragingByHand))),
    "scaler before averages": (across.scalers_agree, FP16, maker(plain(AveragingTooLate))),
    "averages before scaler": (across.scalers_agree, FP16, maker(plain(AveragingByHand))),
    "scaler under ddp": (across.scalers_agree, FP16, maker(spread("ddp"))),
    "scaler under fsdp2": (across.scalers_agree, FP16, maker(spread("fsdp2"))),
}


def judged(probe: Probe, precision: Precision, make: Callable[[Precision], Arm]) -> str:
    (batch,) = make(precision).take(1)
    return str(run_probe(probe, make, precision, batch))


def everything(make: Callable[[Precision], Arm], precision: Precision) -> list[str]:
    """Return what is not green of all probes of a healthy step."""
    told = (judged(probe, precision, make) for probe in probes_here())
    return [each for each in told if not each.startswith("PASS")]


def as_one(how: Parallel) -> float:
    """Return how far weights are from those of one process with both ranks' batches."""
    trained = []
    for together in (how, None):
        torch.manual_seed(0)
        model = network(norm=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(model, optimizer, parallel=together)
        for one, other in zip(batches(0), batches(1), strict=True):
            both = (torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]]))
            step(both if together is None else (one, other)[dist.get_rank()])
        whole: list[Any] = [each.detach() for each in model.parameters()]
        whole = [each.full_tensor() if is_sharded(each) else each for each in whole]
        trained.append(torch.cat([each.reshape(-1) for each in whole]))
    return float((trained[0] - trained[1]).abs().max())


def put_back(how: Parallel) -> str | None:
    """Return what differs once a step was taken and all was put back."""
    arm = maker(spread(how))(FP32)
    step, (batch,) = arm.step, arm.take(1)
    step(batch)
    before, restore = states_of(arm.parts), arm.snapshot()
    step(batch)
    assert difference(before, states_of(arm.parts)) is not None
    restore()
    return difference(before, states_of(arm.parts))


def perturbed(how: Parallel) -> bool:
    """Tell whether each rank's part of the weights is perturbed as it is where it is whole."""
    arms = [maker(spread(each))(FP32) for each in (how, "ddp")]
    for arm in arms:
        arm.perturb(seed=3)
    rank, alike = dist.get_rank(), True
    for one, whole in zip(*(arm.parameters() for arm in arms), strict=True):
        part = whole.chunk(dist.get_world_size())[rank] if is_sharded(one) else whole
        alike &= torch.equal(local_of(one), part)
    return all(ranks().each(alike))


def after_training(make: Callable[[Precision], Arm]) -> str:
    """Return what is said of an arm that was watched while it trained."""
    weights = RankWeights(ranks())
    arm = weights.watched(make(FP32))
    for batch in arm.take(3):
        arm.step(batch)
    weights.look_at(arm)
    (verdict,) = weights.verdicts()
    return str(verdict)


def main(out: Path) -> None:
    """Run all cases as one of the ranks."""
    faulthandler.dump_traceback_later(GIVE_UP_S, exit=True)
    torch.set_num_threads(1)
    join(choose_device("cpu"))
    told: dict[str, Any] = {name: judged(*case) for name, case in CASES.items()}
    for how in ("ddp", "fsdp2"):
        told[f"everything {how}"] = everything(maker(spread(how)), Precision.bf16)
        told[f"as one {how}"] = as_one(how)
        told[f"kept {how}"] = activation_bytes_per_sample(maker(spread(how))(FP32))
        told[f"put back {how}"] = put_back(how)
        told[f"perturbed {how}"] = perturbed(how)
        told[f"after {how}"] = after_training(maker(spread(how)))
    told["after drifting"] = after_training(maker(spread("ddp", Drifting)))
    layers_split = maker(tensor_parallel, same=True)
    told["everything tensor parallel"] = everything(layers_split, FP32)
    told["after tensor parallel"] = after_training(layers_split)
    of_all = ranks().each(told)
    if ranks().seat.leads:
        out.write_text(json.dumps(of_all), encoding="utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
