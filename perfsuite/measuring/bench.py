"""What a benchmark file works with: the fixture ``perf``, an instance of `Bench`."""

from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch

from perfsuite.devices.device import PeakMemory
from perfsuite.devices.precision import Precision, backend_flags, read_flags
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.gates import Outcome, Verdict, throttling
from perfsuite.judging.interleaving import Duet
from perfsuite.judging.thresholds import Thresholds
from perfsuite.judging.throttling import Sifted, sift
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.memory import peak_memory
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block, warm_up, watched
from perfsuite.measuring.turns import Turns
from perfsuite.records.notes import Notes
from perfsuite.records.schema import Benchmark
from perfsuite.training.data import DataError, Digits
from perfsuite.training.workload import Arm, Workload


@dataclass(eq=False, repr=False)
class Bench:
    """Builds arms, times them, and has notes taken on what they show."""

    notes: Notes  # where everything goes; most of its methods are this object's too
    _: KW_ONLY
    machine: Machine
    workload: Workload
    digits: Digits
    thresholds: Thresholds  # of this hardware
    turns: Turns

    def __post_init__(self) -> None:
        notes, device = self.notes, self.machine.device
        self.configure, self.keep, self.timed = notes.configure, notes.keep, notes.timed
        self.metric, self.gate, self.show = notes.metric, notes.gate, notes.show
        self.clock, self._sensor = device.clock(), device.sensor()
        self._state_before = self._sensor.read()
        self.configure(
            device=device.kind,
            workload=self.workload.name,
            batch_size=self.workload.batch_size,
            data=self.digits.source,
        )

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return self.machine.device.place

    @property
    def real_digits(self) -> Digits:
        """The digits, where something is to be learnt from them; DataError if synthetic."""
        if self.digits.source == "synthetic":
            raise DataError(
                f"{self.notes.key}: nothing can be learnt from --perf-data synthetic; use mnist5k,"
                " or leave this benchmark out with -k"
            )
        return self.digits

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return a callback that shows how much of `what` is done."""
        return partial(self.turns.show, what)

    def arm(self, precision: Precision, *, seed: int = 0) -> Arm:
        """Return a fresh arm of the workload, warmed up and back at its initial state."""
        return self.warm(self.workload.arm(precision, self.digits, seed), seed=seed)

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
            warm_up=[asdict(block) for block in warmed.blocks],
        )
        return arm

    def _turn(self, arm: Arm, steps: int) -> Turn:
        return watched(lambda: time_block(arm, self.clock, steps), self._sensor)

    def time(self, arm: Arm, *, blocks: int) -> tuple[Block, ...]:
        """Time blocks of a warm arm, keep them, and return those that were not throttled.

        Where that is less than half, all are returned and the benchmark is INCONCLUSIVE.
        """
        steps = self.workload.block_steps
        timed = self.turns.one(str(arm.precision), self._turn(arm, steps), blocks)
        self.configure(blocks=blocks, block_steps=steps)
        self.keep("blocks", [asdict(block) for block in timed])
        sifted = sift(timed, lambda block: bool(block.throttled))
        self._tell_throttling(sifted, timed)
        self.timed(block.step_s for block in sifted.used)
        return sifted.used

    def duet(
        self, first: Arm, second: Arm, judge: Callable[[Duet], Verdict], *, steps: int | None = None
    ) -> Duet:
        """Time two warm arms in ABBA turns; keep the blocks and the last verdict of `judge`.

        Sampling ends once it is not INCONCLUSIVE, or the budget is spent. The second arm's
        times go into pytest-benchmark's statistics. `steps` are those in a block.
        """
        steps = self.workload.block_steps if steps is None else steps
        timed = self.turns.two(
            f"{first.precision} and {second.precision}",
            self._turn(first, steps),
            self._turn(second, steps),
            clear=lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE,
        )
        self.configure(block_steps=steps)
        arms, blocks = [first.label, second.label], [asdict(block) for block in timed.blocks]
        self.keep("duet", {"order": timed.order, "arms": arms, "blocks": blocks})
        self._tell_throttling(timed.sifted, timed.blocks)
        self.timed(block.step_s for block in timed.blocks_of("B"))
        self.gate(judge(timed))
        return timed

    def _tell_throttling(self, sifted: Sifted[Any], blocks: tuple[Block, ...]) -> None:
        if sifted.set_aside:
            reasons = sorted({reason for block in blocks for reason in block.throttled})
            self.gate(throttling("throttling", sifted, reasons))

    def profile(self, arm: Arm) -> None:
        """Note where the time of a warm arm's step goes, once all of it is timed."""
        if self.turns.explains:
            self.turns.show(f"profiling {arm.precision}", 0, 1)
            self.notes.operators = profile(arm, self.machine.device)

    def peak_memory(self, precision: Precision, *, steps: int) -> PeakMemory | None:
        """Return the peak of some fresh training steps; None where the device counts no memory."""
        batches = islice(self.digits.batches(self.workload.batch_size, seed=0), steps)
        return peak_memory(self.workload, precision, self.machine.device, list(batches))

    def record(self) -> Benchmark:
        """Return everything that is known of this benchmark, now that it is done."""
        return self.notes.record(self._state_before, self._sensor.read())
