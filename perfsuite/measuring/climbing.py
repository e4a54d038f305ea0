"""Levers tried in turns: one more on each rung of a ladder, or each by itself, for advice."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from perfsuite.devices.precision import Precision
from perfsuite.judging.ceilings import CeilingError
from perfsuite.judging.estimates import Estimate
from perfsuite.judging.gains import (
    SLOWER,
    UNRESOLVED,
    LeverTried,
    all_without_memory,
    gain_of,
    told_gain,
    word_of,
)
from perfsuite.judging.gates import Outcome, Verdict, not_gated
from perfsuite.judging.interleaving import Duet
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import ceilings_of, note_shares
from perfsuite.measuring.few_steps import (
    FewSteps,
    models_of,
    steps_alike,
    take_few_steps,
    take_perturbed_steps,
)
from perfsuite.measuring.kernels import loads_of
from perfsuite.measuring.leaving_out import leaving_out, time_limit
from perfsuite.measuring.memory import activation_bytes, peak_memory
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.records.operators import Profile, explain, products_s
from perfsuite.training.arm import Arm
from perfsuite.training.levers import LeverError, Levers

STEP_S = 0.6
"""A batch is halved until a step takes no longer, so that a ladder takes minutes."""
BLOCK_S = 0.1
READY_S = 90.0
"""In which a rung has to be warm: a lever that takes longer, as a compiler may, is left out."""
CHECKED_STEPS = 6
"""More than a graph's plain steps, so that some are of the graph."""
_PROFILES = 2
_NOT_READY = (RuntimeError, TimeoutError, AssertionError, ValueError)
"""What torch, its compilers and its optimizers raise where they cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Levers):
    """How a training is run.

    Attributes:
        feed: makes what the step fetches its batches from, of so many samples; None: batches lie
            on the device.
        reads_loss: whether the host reads the loss of each step, and so waits for it.
    """

    precision: Precision
    feed: Callable[[int], Iterable[Any]] | None = None
    reads_loss: bool = False

    @property
    def step_alone(self) -> "Recipe":
        """The same without what is around the step, and without repeating samples."""
        return replace(self, feed=None, reads_loss=False)


class _Rung:
    """A recipe, and what is known of it.

    It is made ready last, once no other training of it is needed: beside the one below there is
    room for one.
    """

    arm: Arm
    steps: int  # in a block
    memory_bytes: int | None = None

    def __init__(self, perf: Bench, name: str, recipe: Recipe, samples: int) -> None:
        self.perf, self.name, self.recipe = perf, name, recipe
        self.samples = samples << recipe.doublings

    def _fresh(self, recipe: Recipe) -> Arm:
        perf = self.perf
        arm = perf.workload.arm(recipe.precision, perf.device, levers=recipe).resized(self.samples)
        if (found := arm.samples(*arm.take(1))) != self.samples:
            raise LeverError(
                f"a batch has {found} samples, and was to have {self.samples}: the first dimension"
                " of its tensors is not that of samples"
            )
        if recipe.feed is not None:
            arm = arm.fed_by(recipe.feed(self.samples))
        return replace(arm, step=_reading(arm.step)) if recipe.reads_loss else arm

    @cached_property
    def few_steps(self) -> FewSteps:
        """What some steps do."""
        return take_few_steps(self.fresh_step(), CHECKED_STEPS)

    def fresh_step(self) -> Arm:
        """Return a fresh arm of the step alone."""
        return self._fresh(self.recipe.step_alone)

    def measure_memory(self) -> None:
        """Find out what a step takes, where that is counted, or else where a model is shown."""
        alone, device = self.recipe.step_alone, self.perf.machine.device
        if (peak := peak_memory(lambda: self._fresh(alone), device, steps=4)) is not None:
            self.memory_bytes = peak.allocated_bytes
            return
        arm = self._fresh(alone)
        if models_of(arm) and not self.recipe.compile:  # whose kept tensors no hook sees
            self.memory_bytes = activation_bytes(arm, arm.take(1)[0])

    def make_ready(self) -> None:
        """Warm it up, and find out how many steps a block has."""
        perf = self.perf
        perf.progress(f"warming up {self.name}")(0, 1)
        self.arm = self._fresh(self.recipe)
        self.arm.label = self.name
        (first,) = warm_up(self.arm, perf.clock, steps=1, max_blocks=1).blocks
        self.steps = max(1, min(perf.workload.block_steps, round(BLOCK_S / first.wall_s)))
        warm_up(self.arm, perf.clock, steps=self.steps)

    @cached_property
    def profile(self) -> Profile:
        """Where the time goes of its step as it is written: a graph's kernels are no operator's."""
        self.perf.progress(f"profiling {self.name}")(0, 1)
        return profile(self.arm.as_written(), self.perf.machine.device, repeats=_PROFILES)

    def tell(self, found: LeverTried, blocks: Iterable[Any]) -> None:
        """Say what its blocks show."""
        perf, used = self.perf, list(blocks)
        loads = loads_of([(self.arm, used)], perf.machine.device)
        found.precision, found.samples = str(self.recipe.precision), self.samples
        found.step_s = median(block.step_s for block in used)
        found.samples_per_s = self.samples / found.step_s
        found.memory_bytes = self.memory_bytes
        for load in loads:
            found.bound = "host" if load.host_bound else "" if load.host_bound is None else "device"


def own_samples(perf: Bench, precision: Precision) -> int:
    """Return how many samples the workload's own batch has."""
    arm = perf.workload.arm(precision, perf.device)
    return arm.samples(arm.take(1)[0])


def fitting_samples(perf: Bench, *recipes: Recipe, most_s: float = STEP_S) -> int:
    """Return how many samples a batch may have for a step of each recipe to take no longer."""
    samples = own_samples(perf, recipes[0].precision)
    while samples > 2 and any(_step_s(perf, each, samples) > most_s for each in recipes):
        samples //= 2
    return samples


def _step_s(perf: Bench, recipe: Recipe, samples: int) -> float:
    levers = recipe.step_alone
    arm = perf.workload.arm(recipe.precision, perf.device, levers=levers).resized(samples)
    time_block(arm, perf.clock, 1)
    return time_block(arm, perf.clock, 1).step_s


def try_levers(
    perf: Bench,
    first: Recipe,
    levers: Mapping[str, Mapping[str, Any]],
    *,
    foot: str,
    samples: int,
    climb: bool,
    always: str = "",
) -> list[LeverTried]:
    """Try levers, each in turns with the recipe before it, or all with the first one.

    A lever changes fields of the recipe. With `climb` it stays pulled for all that follow, unless
    it made the step slower and is not called `always`. Each has to leave losses and weights as they
    are, but for rounding; those of another batch are told, since Adam makes whole steps of it.
    One for which there is not enough memory is left out, which is red where none is tried.
    """
    device = perf.machine.device
    arm = perf.fresh(first.precision)  # which tells what is trained, and counts its FLOPs
    flops = None if perf.flops is None else perf.flops / arm.samples(*arm.take(1))
    del arm
    ceilings_of(device)  # while there is room for their operands
    below = _Rung(perf, foot, first, samples)
    below.measure_memory()
    below.make_ready()
    found = [LeverTried(name=foot)]
    for name, change in levers.items():
        rung = _Rung(perf, name, replace(below.recipe, **change), samples)
        device.free_cache()  # of those that are no more, as the last one may be
        found.append(LeverTried(name=name, against=below.name))
        _try(rung, below, found[-1], foot=found[0])
        if climb and found[-1].gain is not None and (found[-1].word != SLOWER or name == always):
            below = rung
    if found[0].step_s is None:  # every lever was left out
        below.tell(found[0], perf.time(below.arm, steps=below.steps))
    if flops is not None:
        note_shares(perf.notes, found, flops=flops, device=device)
    perf.keep("ceilings", asdict(ceilings_of(device)))  # as they are now that shares were asked for
    perf.gate(*all_without_memory(found))
    perf.show("\n".join(map(str, found)))
    if climb and perf.turns.explains:
        _tell_top(below, flops)
    return found


def _try(rung: _Rung, below: _Rung, tried: LeverTried, *, foot: LeverTried) -> None:
    """Try a rung in turns with the one below, and say what came of it, or why it is left out."""
    perf, device = rung.perf, rung.perf.machine.device
    times, confidence = rung.samples / below.samples, perf.thresholds.amp_speedup.confidence

    def gain(turns: Duet) -> Estimate:
        return gain_of(turns, confidence=confidence, times=times)

    def judge(turns: Duet) -> Verdict:
        return not_gated(rung.name, told_gain(gain(turns)), f"beside {below.name}")

    with leaving_out(tried, device, *_NOT_READY):
        with time_limit(READY_S):
            if rung.recipe.step_alone != below.recipe.step_alone:
                tried.loss_apart = _judge_steps(rung, below)
            rung.measure_memory()
        with time_limit(READY_S):
            rung.make_ready()
    if tried.left_out:
        return
    with leaving_out(tried, device):
        turns = perf.duet(
            below.arm,
            rung.arm,
            judge,
            steps=max(below.steps, rung.steps),
            clear=lambda turns: word_of(gain(turns)) != UNRESOLVED,
        )
        found = gain(turns)
        if found.unknown:
            tried.left_out = found.unknown
            return
        if foot.step_s is None:
            below.tell(foot, turns.blocks_of("A"))
        if word_of(found) == SLOWER and perf.turns.explains:
            tried.slower_by = explain(below.profile, rung.profile, ratio=times / found.value)
        rung.tell(tried, turns.blocks_of("B"))
        tried.gain = found


def _judge_steps(rung: _Rung, below: _Rung) -> str:
    """Judge some steps, which have to do what those of the rung below do; tell losses' figure."""
    perf, found, plain = rung.perf, rung.few_steps, below.few_steps
    margin, device = perf.thresholds.convergence.margin, perf.machine.device
    alike = steps_alike(rung.name, found, plain, margin)
    if rung.samples != below.samples:
        why = "a batch of another size is rounded anew"
    elif plain.draws:
        why = "the step draws random numbers outside of dropout layers, and may draw others"
    elif rung.recipe.precision.scales_gradients != below.recipe.precision.scales_gradients:
        why = "a gradient scaler skips steps until its scale fits"
    else:
        why = ""
        if any(each.outcome is Outcome.FAIL for each in alike):
            by = max(each.recipe.precision.rounding for each in (rung, below))
            trials: list[FewSteps] = []
            # What hinders them leaves no lever out: its verdict stands.
            with leaving_out(LeverTried(name=""), device, *_NOT_READY), time_limit(READY_S):
                trials.extend(take_perturbed_steps(below.fresh_step, CHECKED_STEPS, by))
            alike = steps_alike(rung.name, found, plain, margin, trials)
    perf.gate(*(not_gated(each.gate, each.figure, why) if why else each for each in alike))
    return alike[0].figure


def _tell_top(top: _Rung, flops: float | None) -> None:
    """Say what holds the top of a ladder: how fast its products are, and what else there is."""
    perf, profile = top.perf, top.profile
    perf.notes.operators = profile
    in_products_s = products_s(profile)
    written = ", as it is written," * (top.arm.written is not None)
    told = f"{top.name}: {in_products_s / profile.total_s:.0%} of its step{written} in products"
    if in_products_s and flops is not None:
        rate, ceilings = flops * top.samples / in_products_s, ceilings_of(perf.machine.device)
        # A profile's seconds are no ground for an error, and a convolution may raise the ceiling.
        with suppress(CeilingError):
            share = ceilings.share(rate, top.recipe.precision)
            told += "" if share is None else f", at {share:.1%} of the ceiling"
    perf.show(told)


def _reading(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reading(batch: Any) -> Any:
        loss = step(batch)
        loss.item()
        return loss

    return reading
