"""What a benchmark file works with: the fixture ``perf``, an instance of `Bench`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any

import torch

from perfsuite.devices.device import PeakMemory
from perfsuite.devices.host import read_cpu_use
from perfsuite.devices.precision import Precision, backend_flags, read_flags
from perfsuite.judging.blocks import Block, State, Turn, resting_collector
from perfsuite.judging.estimates import Estimate, median_s
from perfsuite.judging.gates import Outcome, Verdict, throttling
from perfsuite.judging.host_bound import Load, judge_host
from perfsuite.judging.interleaving import Duet
from perfsuite.judging.stalls import Pace, judge_speedup, pace_of
from perfsuite.judging.thresholds import Thresholds
from perfsuite.judging.throttling import Sifted, sift
from perfsuite.measuring.ceiling_search import note_throughput
from perfsuite.measuring.identity import identity_of, spread_of
from perfsuite.measuring.kernels import loads_of
from perfsuite.measuring.loop import Loop
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.memory import peak_memory
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.rank_weights import RankWeights
from perfsuite.measuring.timing import Timeable, time_block, warm_up, watched
from perfsuite.measuring.turns import Turns
from perfsuite.records.notes import Notes
from perfsuite.records.schema import Benchmark
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError, endless
from perfsuite.training.workload import Workload

AnyStep = Callable[..., Any]
Steps = int | tuple[int, int] | None
Judge = Callable[[Duet], Verdict]
Clear = Callable[[Duet], bool] | None
STRETCH_STEPS = 50
"""Of a stretch of `Bench.sustain`; fewer where they would take longer than `Turns.stretch_s`."""


@dataclass(eq=False, repr=False)
class Bench:
    """Builds arms, times them, and has notes taken on what they show."""

    notes: Notes  # where everything goes; most of its methods are this object's too
    _: KW_ONLY
    machine: Machine
    workload: Workload
    thresholds: Thresholds  # of this hardware
    turns: Turns
    promoted: Mapping[str, Any] = field(default_factory=dict)  # config of the promoted run

    def __post_init__(self) -> None:
        notes, device = self.notes, self.machine.device
        self.configure, self.keep, self.timed = notes.configure, notes.keep, notes.timed
        self.metric, self.gate, self.show = notes.metric, notes.gate, notes.show
        self.clock, self._sensor = self.machine.clock(), self.machine.sensor()
        self._state_before = self._sensor.read()
        self._state_after: State | None = None
        # Of two trees, the other side's process would count as others.
        self._cpu_before = read_cpu_use() if self.turns.two_arms else None
        self._identified, self._weights = False, RankWeights(self.machine.ranks)
        self._loads: dict[str, Any] = {}  # who was busy, by arm
        self._steps_s: dict[str, list[float]] = {}  # of each step that was timed, by arm
        self.configure(device=device.kind)

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return self.machine.device.place

    def require_learnable(self) -> None:
        """Raise TrainingError if nothing can be learnt from the workload's batches."""
        if not self.workload.learnable:
            raise TrainingError(
                f"{self.notes.key}: nothing can be learnt from {self.workload.data} batches; use"
                " others (--perf-data mnist5k), or leave this benchmark out with -k"
            )

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return what shows how much of `what` is done."""
        return partial(self.turns.show, what)

    def fresh(self, precision: Precision, seed: int = 0) -> Arm:
        """Return a fresh arm of the workload; the first one also tells what that is."""
        if not self._identified:
            self._identified = True
            arm = self.workload.arm(precision, self.device, seed)
            self.configure(workload=self.workload.name, data=self.workload.data)
            self.configure(**identity_of(arm))
            self.flops = arm.flops
        return self._weights.watched(self.workload.arm(precision, self.device, seed))

    def arm(self, precision: Precision, *, seed: int = 0, doublings: int = 0) -> Arm:
        """Return a fresh arm of the workload, warmed up and back to where it was after one step."""
        return self.warm(self.fresh(precision, seed).enlarged(doublings), seed=seed)

    def plain(self, step: AnyStep, batches: Iterable[Any] | None = None, *, label: str = "") -> Arm:
        """Return an arm of any callable; without batches it is called without an argument."""
        called = (lambda _: step()) if batches is None else step
        feed = repeat(None) if batches is None else endless(batches)
        name = label or getattr(step, "__name__", "step")
        return Arm(step=called, batches=feed, device=self.device, label=name)

    def warm(self, arm: Arm, *, seed: int = 0) -> Arm:
        """Warm an arm up until its blocks are steady, and note how that went."""
        self.turns.show(f"warming up {arm.label}", 0, 1)
        warmed = warm_up(arm, self.clock, steps=self.workload.block_steps)
        with backend_flags(arm.precision):
            flags = read_flags()
        self.notes.arm(
            arm.label,
            precision=str(arm.precision),
            seed=seed,
            flags=flags,
            steady=warmed.steady,
            warm_up=[block.kept() for block in warmed.blocks],
        )
        return arm

    def _turn(self, arm: Timeable, steps: int) -> Turn:
        steps_s = self._steps_s.setdefault(arm.label, [])

        def timed() -> Block:
            block = time_block(arm, self.clock, steps)
            steps_s.extend(self.clock.laps_s())
            return block

        return watched(timed, self._sensor)

    def time(
        self,
        arm: Timeable | AnyStep,
        batches: Iterable[Any] | None = None,
        *,
        blocks: int = 20,
        steps: int | None = None,
    ) -> tuple[Block, ...]:
        """Time blocks of a warm arm, or of a callable, and return those that were not throttled.

        A callable is warmed up first, and is given the batches one by one, if there are any.
        Where less than half was not throttled, all blocks are returned and the benchmark is
        INCONCLUSIVE. `steps` are those in a block.
        """
        if not isinstance(arm, Timeable):
            arm = self.warm(self.plain(arm, batches))
        steps = self.workload.block_steps if steps is None else steps
        timed: list[Block] = []
        turn = self._turn(arm, steps)
        with resting_collector():
            for _ in self.turns.asked(arm.label, blocks):
                timed.append(turn())
                self.turns.gave(timed[-1])
        self._weights.look_at(arm)
        return self.timed_blocks(arm.label, timed, blocks=blocks, block_steps=steps)

    @contextmanager
    def loop(self, *, blocks: int = 20, skip: int = 10) -> Iterator[Loop]:
        """Time a loop that a framework owns; `Loop.step` has to be called after each step.

        The first `skip` steps are not timed. The figure is ``step_s``. It must take steps for all
        blocks, and with --perf-against for as many as are asked for.
        """
        steps = self.workload.block_steps
        loop = Loop(self.turns, self.clock, self._sensor, blocks=blocks, steps=steps, skip=skip)
        yield loop
        used = self.timed_blocks("the loop", loop.finish(), blocks=blocks, block_steps=steps)
        self.metric("step_s", median_s([b.step_s for b in used]), unit="s", better="lower")

    def timed_blocks(
        self, what: str, timed: list[Block], *, blocks: int, block_steps: int
    ) -> tuple[Block, ...]:
        """Keep blocks that were timed, and return those that were not throttled; see `time`."""
        self.configure(blocks=blocks, block_steps=block_steps)
        self.keep("blocks", [block.kept() for block in timed])
        sifted = sift(timed, lambda block: bool(block.throttled))
        self._note_blocks(sifted, timed)
        self.timed(block.step_s for block in sifted.used)
        if said := spread_of(sifted.used):
            self.show(f"{what}: {said}")
        return sifted.used

    def throughput(self, arm: Arm, step_s: float) -> None:
        """Keep and show what a step time means in samples, tokens and FLOPs a second."""
        device = self.machine.device if self.turns.explains else None
        told = note_throughput(self.notes, arm, step_s, flops=self.flops, device=device)
        self.show(f"{self.workload.name} in {told}")

    def duet(
        self, first: Arm, second: Arm, judge: Judge, *, steps: Steps = None, clear: Clear = None
    ) -> Duet:
        """Time two warm arms in ABBA turns; keep the blocks and the last verdict of `judge`.

        Sampling ends once that is not INCONCLUSIVE, or `clear`, or the budget is spent. The second
        arm's times go to pytest-benchmark. `steps` are those in a block, or of each arm.
        """
        steps = self.workload.block_steps if steps is None else steps
        first_steps, steps = steps if isinstance(steps, tuple) else (steps, steps)
        timed = self.turns.two(
            f"{first.label} and {second.label}",
            self._turn(first, first_steps),
            self._turn(second, steps),
            clear=clear or (lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE),
        )
        self.configure(block_steps=steps)
        self._weights.look_at(first, second)
        self.keep("duet", timed.kept(first.label, second.label))
        self._note_blocks(timed.sifted, timed.blocks)
        self.timed(block.step_s for block in timed.blocks_of("B"))
        self.gate(judge(timed))
        return timed

    def sustain(self, reference: Precision, precision: Precision, judge: Judge) -> Pace:
        """Time hundreds of steps in stretches without a wait; return the pace of `precision`.

        Both precisions take turns, and `judge` has the verdict; see `duet`. Of two trees
        (--perf-against) those take turns, in `precision`.
        """
        arm = self.arm(precision)
        first = time_block(arm, self.clock, self.workload.block_steps)
        steps = min(max(round(self.turns.stretch_s / first.wall_s), 2), STRETCH_STEPS)
        paces = {}
        if self.turns.two_arms:
            beside = self.arm(reference)
            turns = self.duet(beside, arm, judge, steps=steps)
            paces[beside.label] = pace_of(self._steps_s[beside.label], turns.blocks_of("A"))
            blocks = turns.blocks_of("B")
        else:
            blocks = list(self.time(arm, steps=steps))
        # How many they are depends on how busy the machine is, and says nothing of the mean.
        self.configure(block_steps=None)
        pace = paces[arm.label] = pace_of(self._steps_s[arm.label], blocks)
        self.keep("sustained", {label: asdict(each) for label, each in paces.items()})
        for label, each in paces.items():
            self.show(f"{label} sustained: {each}")
        self.throughput(arm, pace.mean_s)
        return pace

    def loads(self, *timed: tuple[Arm, Iterable[Block]]) -> list[Load]:
        """Say of warm arms that were timed who was busy, and what would help; nothing on a CPU."""
        if loads := loads_of(timed, self.machine.device):
            self._loads |= {load.label: asdict(load) for load in loads}
            self.keep("loads", self._loads)
            self.gate(judge_host(loads))
        return loads

    def compare(
        self,
        first: AnyStep,
        second: AnyStep,
        batches: Iterable[Any] | None = None,
        *,
        minimum: float | None = None,
    ) -> Estimate:
        """Return how many times faster the second of two callables is, both timed in turns.

        It has to be at least `minimum`, where one is given: the gate "speedup".
        """
        one, other = (self.warm(self.plain(step, batches)) for step in (first, second))
        if one.label == other.label:
            other.label += " (second)"
        confidence = self.thresholds.amp_speedup.confidence

        def judge(turns: Duet) -> Verdict:
            return judge_speedup("speedup", turns, minimum, confidence=confidence, name=one.label)

        return self.duet(one, other, judge).ratio("A", over="B", confidence=confidence)

    def _note_blocks(self, sifted: Sifted[Any], blocks: Sequence[Block]) -> None:
        self._state_after = next((b.state for b in reversed(blocks) if b.state is not None), None)
        if sifted.set_aside:
            reasons = sorted({reason for block in blocks for reason in block.throttled})
            self.gate(throttling("throttling", sifted, reasons))

    def profile(self, arm: Arm) -> None:
        """Note where the time of a warm arm's step goes, once all of it is timed."""
        if self.turns.explains:
            self.turns.show(f"profiling {arm.label}", 0, 1)
            self.notes.operators = profile(arm, self.machine.device)

    def peak_memory(self, precision: Precision, *, steps: int) -> PeakMemory | None:
        """Return the peak of some fresh training steps; None where the device counts no memory."""
        return peak_memory(lambda: self.fresh(precision), self.machine.device, steps=steps)

    def record(self) -> Benchmark:
        """Return everything that is known of this benchmark, now that it is done."""
        # Of the last block that was timed: when the benchmark is done, the clocks have long fallen.
        after = self._state_after or self._sensor.read()
        others = self.machine.others_cpu(self._cpu_before, read_cpu_use())
        self.gate(*self._weights.verdicts())
        return self.notes.record(self._state_before, replace(after, others_cpu=others))
