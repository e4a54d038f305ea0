"""Two ranks that do what the tests beside this file ask about; rank 0 writes what came of it.

torchrun ranks_at_work.py FILE
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import leave
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.collective_replay import noted, replayed
from perfsuite.measuring.machine import Machine, machine
from perfsuite.measuring.rank_pairs import train_rank_pairs
from perfsuite.measuring.rank_turns import take_rank_turns, take_scaling_turns
from perfsuite.measuring.turns import Alone
from perfsuite.measuring.worlds import World, Worlds, worlds_of
from perfsuite.records.notes import Notes
from perfsuite.training.batches import TrainingError
from perfsuite.training.workload import Training, Workload

FEATURES, SAMPLES, NOISE = 32, 4, 1.0
FP32 = Precision.fp32

WrapModel = Callable[[nn.Module], nn.Module]
After = Callable[[nn.Module], None]


def sharded(model: nn.Module) -> nn.Module:
    fully_shard(model)
    return model


def alone(model: nn.Module) -> nn.Module:
    return model


def summed(model: nn.Module) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)


def averaged(model: nn.Module) -> None:
    summed(model)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad /= dist.get_world_size()


def clipped(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def workload(
    wrap: WrapModel = DistributedDataParallel,
    after: After = lambda _: None,
    *,
    reduction: str = "mean",
    normalised: bool = False,
    wider: int = 0,
) -> Workload:
    """Return a noisy regression, of which each rank sees samples of its own.

    Those of rank 1 have `wider` more features, which its model leaves out.
    """

    def make(precision: Precision, device: torch.device, seed: int) -> Training:
        draw = torch.Generator().manual_seed(1000 * seed + dist.get_rank())
        layers = [nn.BatchNorm1d(FEATURES)] if normalised else []
        model = wrap(nn.Sequential(*layers, nn.Linear(FEATURES, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

        def step(batch: tuple[Tensor, Tensor]) -> Tensor:
            samples, targets = batch
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(
                model(samples[:, :FEATURES]), targets, reduction=reduction
            )
            loss.backward()
            after(model)
            optimizer.step()
            return loss

        batches = []
        for _ in range(40):
            features = FEATURES + wider * dist.get_rank()
            samples = torch.randn(SAMPLES, features, generator=draw)
            noise = NOISE * torch.randn(SAMPLES, 1, generator=draw)
            batches.append((samples, samples.sum(dim=1, keepdim=True) + noise))
        return Training(step=step, batches=batches, state=[model, optimizer])

    return Workload(name="regression", make=make, convergence_seeds=3)


TRAININGS = {
    "DDP": workload(),
    "FSDP2": workload(sharded),
    "averaged by hand": workload(alone, averaged),
    "summed by hand": workload(alone, summed),
    "not averaged": workload(alone),
    "a summed loss": workload(reduction="sum"),
    "BatchNorm": workload(normalised=True),
}
CLIPPED = workload(sharded, clipped)


def bench(on: Machine, of: Workload) -> Bench:
    """Return what a session would hand to a benchmark; it stops at the first look."""
    return Bench(
        Notes("test_it", markers=[]),
        machine=on,
        workload=of,
        thresholds=load_thresholds(Path("none"), on.hardware.key),
        turns=Alone(lambda *_: None, budget_s=0.0, now=on.time_s),
    )


def seen(worlds: Worlds, world: World) -> dict[str, Any]:
    """Return what a training sees of the others in a world, on each rank."""
    with worlds.within(world):
        total = torch.ones(1)
        dist.all_reduce(total)
        names = ("RANK", "WORLD_SIZE")
        own = [dist.get_rank(), dist.get_world_size(), int(total), *map(os.environ.get, names)]
        return {"each": worlds.ranks.each(own)}  # who meet as ever


def of_worlds(on: Machine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with worlds_of(on.ranks) as worlds:
        found["seen"] = {str(world): seen(worlds, world) for world in World}

        def fail() -> None:
            if on.ranks.seat.rank == 1:
                raise ValueError("no\nat all")

        try:
            worlds.attempt(World.DETACHED, "make it", fail)
        except TrainingError as error:
            found["failed"] = on.ranks.each(str(error))
        for name in ("DDP", "FSDP2"):
            arm = TRAININGS[name].arm(FP32, on.device.place)
            arm.step(*arm.take(1))
            replay = noted(arm)
            again = replayed(replay, on.device.place)
            again.step(*again.take(1))
            found[f"replayed {name}"] = on.ranks.each(len(replay))
    found |= of_steps_apart(on)
    found["afterwards"] = dist.get_world_size()
    return found


def of_steps_apart(on: Machine) -> dict[str, Any]:
    """Return what comes of a step that meets its like, and of one that has a real group."""
    elsewhere: Any = dist.new_group()

    def tell(_: nn.Module) -> None:
        dist.all_reduce(torch.ones(1), group=elsewhere)

    found = {}
    with worlds_of(on.ranks) as worlds:
        for name, of in (("clipped", CLIPPED), ("a group of elsewhere", workload(alone, tell))):
            real = of.arm(FP32, on.device.place)
            real.step(*real.take(1))
            with worlds.within(World.DETACHED):
                arm = of.arm(FP32, on.device.place)
            try:
                worlds.step_apart(worlds.settled(arm, World.DETACHED, "each by itself"))
                said = ""
            except TrainingError as error:
                said = str(error)
            real.step(*real.take(1))  # which is as it was
            found[name] = on.ranks.each(said)
    return found


def of_turns(on: Machine) -> dict[str, Any]:
    perf = bench(on, TRAININGS["DDP"])
    take_rank_turns(perf, FP32)
    scaled = bench(on, TRAININGS["DDP"])
    take_scaling_turns(scaled, FP32)
    records = [each.record() for each in (perf, scaled)]
    return {
        "turns": {name: raw for name, raw in records[1].raw.items() if name.startswith("duet")},
        "ranks in": [len(block["ranks_s"]) for block in records[1].raw["duet"]["blocks"][:4]],
        "raw": {name: raw for each in records for name, raw in each.raw.items() if name != "duet"},
        "said": [(each.gate, each.outcome) for record in records for each in record.verdicts],
        "metrics": sorted(records[0].metrics),
    }


def of_pairs(on: Machine, name: str) -> dict[str, Any]:
    perf = bench(on, TRAININGS[name])
    train_rank_pairs(perf, FP32)
    (verdict,) = (each for each in perf.notes.verdicts if each.gate == "mean_loss")
    return {"outcome": str(verdict.outcome), "said": str(verdict)}


def of_other_shapes(on: Machine) -> list[str]:
    """Return what each rank says of batches that cannot be joined."""
    try:
        train_rank_pairs(bench(on, workload(wider=1)), FP32)
    except TrainingError as error:
        return on.ranks.each(str(error))
    return []


def main() -> None:
    torch.set_num_threads(1)
    on = machine("cpu")
    found = {
        "worlds": of_worlds(on),
        "turns": of_turns(on),
        "pairs": {name: of_pairs(on, name) for name in TRAININGS},
        "other shapes": of_other_shapes(on),
    }
    if on.ranks.seat.leads:
        Path(sys.argv[1]).write_text(json.dumps(found, default=str))
    leave()


if __name__ == "__main__":
    main()
