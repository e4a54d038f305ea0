"""Does it train on many ranks as on one? From the same weights, over the same global batches."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import nn

from perfsuite.devices.device import HOST
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.measuring.convergence import (
    SeedPair,
    TrainingRun,
    judge_twice,
    paired,
    train,
    train_here,
)
from perfsuite.measuring.masks import draw_other_masks
from perfsuite.measuring.worlds import World, worlds_of
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import joined, moved

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench

_OF_ITS_OWN_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BATCH_NORM = (
    "BatchNorm normalises by a rank's own batch, and alone by that of all ranks: nn.SyncBatchNorm"
    " does not, on a GPU, and neither do normalisations that know no batch"
)


def train_rank_pairs(perf: "Bench", precision: Precision) -> tuple[SeedPair, ...]:
    """Judge that all ranks train as one alone does on their batches joined, paired by seed.

    Alone is rank 0, from its own weights; each of its batches is those of all ranks. Dropout masks
    of a joined batch are not those of its parts, and so the control draws others, too.

    Raises:
        TrainingError: one rank alone cannot train on them, as where they do not fit into memory.
        NotShownError: there is no model to perturb for the control.
    """
    workload, ranks = perf.workload, perf.machine.ranks
    arms: dict[World, Arm] = {}
    with worlds_of(ranks) as worlds:

        @lru_cache(maxsize=1)
        def batches(seed: int) -> tuple[list[Any], list[list[Any]]]:
            """Return this rank's own, and to rank 0 those of each rank."""
            own = perf.fresh(precision, seed).take(workload.convergence_steps)
            return own, ranks.gathered([moved(batch, HOST) for batch in own])

        def run(world: World, seed: int, control: bool) -> TrainingRun:
            own, every = batches(seed)
            if world is World.REAL:
                arms[world] = perf.fresh(precision, seed)
                return train(arms[world], own, perf.clock)

            def alone() -> TrainingRun | None:
                arm = workload.arm(precision, perf.device, seed)
                if not ranks.seat.leads:
                    return None
                if control:
                    arm.perturb(seed)
                    draw_other_masks(seed)
                together = map(joined, zip(*every, strict=True))
                ready = [moved(batch, arm.device) for batch in together]
                ranks.works_alone = True
                try:
                    return train_here(arm, ready, perf.machine.device.clock())
                finally:
                    ranks.works_alone = False

            found = ranks.agreed(worlds.attempt(world, "train on the batches of all ranks", alone))
            assert found is not None  # rank 0's
            return found

        def pairs_from(seeds: Sequence[int]) -> tuple[SeedPair, ...]:
            show = perf.progress("training pairs of runs")
            return paired(run, World.ALONE, World.REAL, seeds=seeds, progress=show)

        asked = perf.thresholds.convergence
        pairs, verdicts = judge_twice(pairs_from, workload.convergence_seeds, asked)
    perf.configure(seeds=workload.convergence_seeds, steps=workload.convergence_steps)
    perf.keep("precisions", {"reference": "one rank", "candidate": f"{len(ranks)} ranks"})
    perf.keep("pairs", [asdict(pair) for pair in pairs])
    perf.timed(pair.candidate.step_s for pair in pairs)
    perf.gate(*told(verdicts, arms[World.REAL]))
    return pairs


def told(verdicts: Sequence[Verdict], arm: Arm) -> list[Verdict]:
    """Return verdicts with what may be why, if losses differ and a model normalises batches."""
    try:
        models = arm.models
    except NotShownError:
        models = []
    if not any(isinstance(each, _OF_ITS_OWN_BATCH) for model in models for each in model.modules()):
        return list(verdicts)
    return [
        replace(each, reason="; ".join(filter(None, (each.reason, _BATCH_NORM))))
        if each.gate == "mean_loss" and each.outcome is not Outcome.PASS
        else each
        for each in verdicts
    ]
