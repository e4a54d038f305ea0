"""What does measuring cost? Our step against a bare loop that anyone would write by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from perfsuite import Bench, CheckedStep, Duet, Precision, TrainStep, Verdict, at_most, median_s

BLOCKS, MICRO_STEPS = 10, 20


@pytest.mark.one_tree
def test_harness_overhead(perf: Bench) -> None:
    """The harness adds the same few microseconds to every step, whatever the step does.

    On the workload they drown in the noise of its step. So they are measured on a step that
    does next to nothing, and then held against the workload's own step time.
    """
    step_s = median_s([b.step_s for b in perf.time(perf.arm(Precision.fp32), blocks=BLOCKS)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)).to(perf.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def bare(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    batches = perf.fresh(Precision.fp32).take(BLOCKS)
    by_hand = perf.plain(bare, batches, label="by hand")
    ours = replace(
        by_hand,
        step=CheckedStep(TrainStep(model, optimizer), Precision.fp32),
        label="harness",
    )
    perf.warm(by_hand)
    perf.warm(ours)
    asked = perf.thresholds.harness_overhead

    def judge(turns: Duet) -> Verdict:
        ratio = turns.ratio("B", over="A", confidence=asked.confidence)
        share = median_s([block.step_s for block in turns.blocks_of("A")]) / step_s
        overhead = replace(
            ratio,
            value=(ratio.value - 1) * share,
            low=(ratio.low - 1) * share,
            high=(ratio.high - 1) * share,
        )
        return at_most("harness_overhead", overhead, asked.max, unit=" of a step")

    perf.duet(by_hand, ours, judge, steps=MICRO_STEPS)
