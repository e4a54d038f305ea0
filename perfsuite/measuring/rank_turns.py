"""Ranks in turns: all together, each by itself, and one of them alone, in one session."""

import gc
import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from perfsuite.devices.precision import Precision
from perfsuite.judging.blocks import resting_collector
from perfsuite.judging.estimates import median_s
from perfsuite.judging.gates import Verdict, at_most, not_gated
from perfsuite.judging.interleaving import Duet
from perfsuite.judging.rank_times import RankTimes, exposed_share, judge_slow_ranks, rank_times
from perfsuite.judging.scaling import Scaling, judge_scaling, scaling_of
from perfsuite.measuring.collective_replay import noted, replayed
from perfsuite.measuring.timing import time_block
from perfsuite.measuring.worlds import World, Worlds, worlds_of
from perfsuite.training.arm import Arm

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench

COMMUNICATION_BLOCKS = 8
BLOCK_S, MOST_STEPS = 0.05, 50
"""What a rank takes by itself between two turns, at least, if that is not too many steps."""


def take_rank_turns(perf: "Bench", precision: Precision) -> RankTimes | None:
    """Judge ranks' own times and what they wait for each other; return what is known of them.

    All ranks take steps together and each by itself, in turns. By themselves they do so all at the
    same time, and not one after the other: what slows the machine meanwhile slows all of them, no
    order has to be balanced, and a thousand ranks take no longer than two.

    Raises:
        TrainingError: its step cannot be taken by a rank by itself.
    """
    asked, limits = perf.thresholds.slow_ranks, perf.thresholds.communication

    def judge(turns: Duet) -> list[Verdict]:
        share = exposed_share(turns, confidence=limits.confidence)
        return [
            judge_slow_ranks(turns, "B", asked.margin, confidence=asked.confidence),
            at_most("communication", share, limits.max_exposed, unit=" of a step"),
        ]

    def least_clear(turns: Duet) -> Verdict:
        return min(judge(turns), key=lambda verdict: verdict.outcome.rank)

    with worlds_of(perf.machine.ranks) as worlds:
        together = perf.warm(_together(perf, worlds, precision))
        # Not `fresh`: what is asked of the training of all ranks does not hold there.
        make = partial(perf.workload.arm, precision, perf.device)
        apart = worlds.attempt(World.DETACHED, "make its training", make)
        apart = worlds.settled(apart, World.DETACHED, "each by itself")
        worlds.step_apart(apart)
        own = time_block(perf.warm(apart), perf.clock, perf.workload.block_steps)
        turns = perf.duet(together, apart, least_clear, steps=_steps(perf, own.step_s))
        comm_s = _communication_s(perf, together)
    shown = least_clear(turns)
    perf.gate(*(verdict for verdict in judge(turns) if verdict != shown))
    found = rank_times(turns, comm_s, confidence=limits.confidence)
    if found is not None:
        perf.keep("rank_times", asdict(found))
        perf.metric("compute_s", found.compute_s, unit="s", better="lower")
        perf.show(f"{perf.workload.name} on {len(perf.machine.ranks)} ranks: {found}")
    return found


def take_scaling_turns(perf: "Bench", precision: Precision) -> list[Scaling]:
    """Judge how well all ranks scale, beside one alone with a rank's batch and with all of it.

    Alone is rank 0, while the others wait without computing. Where the batch of all ranks does not
    fit into its memory, strong scaling is not known.
    """
    asked, ranks = perf.thresholds.scaling, len(perf.machine.ranks)
    found: list[Scaling] = []
    with worlds_of(perf.machine.ranks) as worlds:
        together = perf.warm(_together(perf, worlds, precision))
        own = perf.machine.ranks.each(together.samples(together.take(1)[0]))
        # The benchmark's own figures are those of the last turns, in which all do their usual work.
        for how, parts, samples in (("strong", ranks, sum(own)), ("weak", 1, own[0])):
            alone = _that_fits(perf, worlds, precision, samples, f"one alone, {how}")
            if alone is None:
                why = f"{samples} samples do not fit into the memory of one rank"
                perf.gate(not_gated(f"{how}_scaling", "unknown", why))
                found.append(Scaling(how=how, ranks=ranks, why_not=why))
                continue
            minimum = asked.weak if how == "weak" else asked.strong

            def judge(
                turns: Duet, how: str = how, parts: int = parts, minimum: float | None = minimum
            ) -> Verdict:
                return judge_scaling(how, turns, minimum, parts=parts, confidence=asked.confidence)

            # A step of one alone takes as long as those of all its parts.
            steps = max(1, perf.workload.block_steps // parts), perf.workload.block_steps
            turns = perf.duet(perf.warm(alone), together, judge, steps=steps)
            if how == "strong":
                perf.keep("duet strong", turns.kept(alone.label, together.label))
            found.append(
                scaling_of(
                    how,
                    turns,
                    ranks=ranks,
                    parts=parts,
                    samples=samples,
                    confidence=asked.confidence,
                )
            )
            del alone  # so that the next one has its memory
            worlds.enter(World.REAL)
    found.reverse()
    perf.keep("scaling", [asdict(each) for each in found])
    return found


def _together(perf: "Bench", worlds: Worlds, precision: Precision) -> Arm:
    """Return a fresh training of all ranks."""
    return worlds.settled(perf.fresh(precision), World.REAL, "all ranks")


def _steps(perf: "Bench", own_s: float) -> int:
    """Return how many steps a block has to have for a rank by itself to be told from noise."""
    return min(max(perf.workload.block_steps, math.ceil(BLOCK_S / own_s)), MOST_STEPS)


def _that_fits(
    perf: "Bench", worlds: Worlds, precision: Precision, samples: int, label: str
) -> Arm | None:
    """Return a training of one rank alone; None where its memory is too small to time it."""

    def made() -> Arm | None:
        gc.collect()  # the one before it
        try:
            arm = perf.workload.arm(precision, perf.device).resized(samples)
            arm = worlds.settled(arm, World.ALONE, label)
            arm.step(*arm.take(1))
            kept = arm.snapshot()  # as warming up does, beside which the next step has to fit
            arm.step(*arm.take(1))
            del kept
        except Exception as error:
            if not perf.machine.device.ran_out(error):
                raise
            return None
        return arm

    found = worlds.attempt(World.ALONE, "make its training and take a step", made)
    return found if all(perf.machine.ranks.each(found is not None)) else None


def _communication_s(perf: "Bench", together: Arm) -> float | None:
    """Return the seconds of a step's collectives by themselves; None where that is not told."""
    replay = noted(together)
    told = perf.machine.ranks.each((len(replay), sorted(replay.unknown)))
    if replay.unknown or not len(replay) or any(each != told[0] for each in told):
        return None
    alone, steps = replayed(replay, perf.device), perf.workload.block_steps
    time_block(alone, perf.clock, steps)
    with resting_collector():
        blocks = [time_block(alone, perf.clock, steps) for _ in range(COMMUNICATION_BLOCKS)]
    return median_s([block.step_s for block in blocks])
