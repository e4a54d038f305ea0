"""Levers tried in turns: one more on each rung of a ladder, or each by itself, for advice."""

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

from torch import nn

from perfsuite.devices.precision import Precision
from perfsuite.judging.gains import SLOWER, LeverTried, gain_of, losses_alike, told_gain
from perfsuite.judging.gates import Verdict, not_gated
from perfsuite.judging.interleaving import Duet
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import SHARE, ceilings_of, with_share
from perfsuite.measuring.kernels import loads_of
from perfsuite.measuring.memory import activation_bytes, peak_memory
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.records.operators import Profile, explain, products_s
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.levers import Levers

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
    """A recipe that is made ready, and what is known of it."""

    def __init__(self, perf: Bench, name: str, recipe: Recipe, samples: int) -> None:
        self.perf, self.name, self.recipe = perf, name, recipe
        self.samples = samples << recipe.doublings
        self.arm = self._fresh(recipe)
        self.arm.label = name

    def _fresh(self, recipe: Recipe) -> Arm:
        perf = self.perf
        arm = perf.workload.arm(recipe.precision, perf.device, levers=recipe).resized(self.samples)
        if recipe.feed is not None:
            arm = arm.fed_by(recipe.feed(self.samples))
        return replace(arm, step=_reading(arm.step)) if recipe.reads_loss else arm

    def warm(self) -> None:
        """Warm it up, and find out how many steps a block has."""
        perf = self.perf
        perf.progress(f"warming up {self.name}")(0, 1)
        (first,) = warm_up(self.arm, perf.clock, steps=1, max_blocks=1).blocks
        self.steps = max(1, min(perf.workload.block_steps, round(BLOCK_S / first.wall_s)))
        warm_up(self.arm, perf.clock, steps=self.steps)

    @cached_property
    def losses(self) -> list[float]:
        """Losses of some steps without dropout, whose masks depend on shapes and precision."""
        arm = self._fresh(self.recipe.step_alone)
        for module in (module for model in _models(arm) for module in model.modules()):
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        return [float(arm.step(batch)) for batch in arm.take(CHECKED_STEPS)]

    @cached_property
    def profile(self) -> Profile:
        """Where its time goes."""
        self.perf.progress(f"profiling {self.name}")(0, 1)
        return profile(self.arm, self.perf.machine.device, repeats=_PROFILES)

    def memory_bytes(self) -> int | None:
        """Return what a step takes; None where no model is shown."""
        alone, device = self.recipe.step_alone, self.perf.machine.device
        if (peak := peak_memory(lambda: self._fresh(alone), device, steps=4)) is not None:
            return peak.allocated_bytes
        arm = self._fresh(alone)
        if not _models(arm) or self.recipe.compile:  # whose kept tensors no hook sees
            return None
        return activation_bytes(arm, arm.take(1)[0])

    def tell(self, found: LeverTried, blocks: Iterable[Any]) -> None:
        """Say what its blocks show."""
        perf, used = self.perf, list(blocks)
        found.samples = self.samples
        found.step_s = median(block.step_s for block in used)
        found.samples_per_s = self.samples / found.step_s
        found.memory_bytes = self.memory_bytes()
        for load in loads_of([(self.arm, used)], perf.machine.device):
            found.bound = "host" if load.host_bound else "" if load.host_bound is None else "device"
        found.share_of_ceiling = self.share_of_ceiling(found.step_s)

    def share_of_ceiling(self, seconds: float) -> float | None:
        """Return its share, were all FLOPs of a step done in so many seconds."""
        perf, precision = self.perf, self.recipe.precision
        if perf.flops is None:
            return None
        flops = perf.flops * self.samples / own_samples(perf, precision)
        rates = {"TFLOP/s": flops / seconds / 1e12}
        rates, wrong = with_share(rates, precision, perf.machine.device)
        perf.gate(*wrong)
        return rates.get(SHARE)


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
    it made the step slower and is not called `always`. Each has to leave the losses as they are;
    those of another batch are told, since Adam makes whole steps of what is rounded otherwise.
    """
    margin = perf.thresholds.convergence.margin
    confidence = perf.thresholds.amp_speedup.confidence
    perf.fresh(first.precision)  # which tells what is trained, and counts its FLOPs
    below = _Rung(perf, foot, first, samples)
    below.warm()
    found = [LeverTried(name=foot)]
    for name, change in levers.items():
        tried = LeverTried(name=name, against=below.name)
        found.append(tried)
        try:
            with time_limit(READY_S):
                rung = _Rung(perf, name, replace(below.recipe, **change), samples)
                rung.warm()
        except _NOT_READY as error:
            tried.left_out = str(error).partition("\n")[0] or type(error).__name__
            continue
        times = rung.samples / below.samples

        def judge(turns: Duet) -> Verdict:
            gain = gain_of(turns, confidence=confidence, times=times)  # noqa: B023  # called at once
            return not_gated(name, told_gain(gain), f"beside {below.name}")  # noqa: B023  # likewise

        turns = perf.duet(below.arm, rung.arm, judge, steps=max(below.steps, rung.steps))
        gain = gain_of(turns, confidence=confidence, times=times)
        if gain.unknown:
            tried.left_out = gain.unknown
            continue
        tried.gain = gain
        if found[0].step_s is None:
            below.tell(found[0], turns.blocks_of("A"))
        rung.tell(tried, turns.blocks_of("B"))
        if rung.recipe.step_alone != below.recipe.step_alone:
            alike = losses_alike(f"{name} losses", rung.losses, below.losses, margin)
            tried.loss_apart = alike.figure
            if times != 1:
                alike = not_gated(
                    alike.gate, alike.figure, "a batch of another size is rounded anew"
                )
            perf.gate(alike)
        if tried.word == SLOWER and perf.turns.explains:
            tried.slower_by = explain(below.profile, rung.profile, ratio=times / gain.value)
        if climb and (tried.word != SLOWER or name == always):
            below = rung
    if found[0].step_s is None:  # every lever was left out
        below.tell(found[0], perf.time(below.arm, steps=below.steps))
    perf.keep("ceilings", asdict(ceilings_of(perf.machine.device)))
    perf.show("\n".join(map(str, found)))
    if climb and perf.turns.explains:
        _tell_top(below)
    return found


def _tell_top(top: _Rung) -> None:
    """Say what holds the top of a ladder: how fast its products are, and what else there is."""
    perf, profile = top.perf, top.profile
    perf.notes.operators = profile
    in_products_s = products_s(profile)
    told = f"{top.name}: {in_products_s / profile.total_s:.0%} of its step in products"
    if in_products_s and (share := top.share_of_ceiling(in_products_s)) is not None:
        told += f", at {share:.1%} of the ceiling"
    perf.show(told)


def _reading(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reading(batch: Any) -> Any:
        loss = step(batch)
        loss.item()
        return loss

    return reading


def _models(arm: Arm) -> list[nn.Module]:
    try:
        return arm.models
    except NotShownError:
        return []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, where the system can interrupt it."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it was not ready after {seconds:.0f} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)  # such as that of a test's time limit
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
