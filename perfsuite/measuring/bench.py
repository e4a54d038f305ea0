"""What a benchmark file works with: the fixture ``perf``, an instance of `Bench`.

It ties the parts together for one benchmark: builds arms, times them, keeps every raw figure
for the run's JSON, and collects verdicts. It knows nothing of pytest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from perfsuite.devices.precision import Precision, backend_flags, read_flags
from perfsuite.devices.state import Sensor, sensor_for
from perfsuite.judging.blocks import Block, Turn
from perfsuite.judging.gates import Outcome, Verdict, not_gated, throttling
from perfsuite.judging.interleaving import Duet, duet
from perfsuite.judging.thresholds import Thresholds
from perfsuite.judging.throttling import Sifted, sift
from perfsuite.measuring.machine import Machine
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import (
    Clock,
    clock_for,
    time_block,
    time_blocks,
    warm_up,
    watched,
)
from perfsuite.records.schema import Benchmark, Metric, encode
from perfsuite.training.data import DataError, Digits
from perfsuite.training.workload import Arm, Workload

if TYPE_CHECKING:
    from perfsuite.records.operators import Profile

Report = Callable[[str, int, int], None]
"""Called with what is being done, how many parts of it are done, and of how many."""


class Bench:
    """One benchmark's hands and notebook.

    Args:
        key: the benchmark's name in baselines.
        markers: names of its pytest markers.
        machine: what it runs on.
        workload: what it trains.
        digits: what it trains on.
        thresholds: what is asked of this hardware.
        report: shows progress.
        budget_s: seconds that sampling may take if its verdict stays unclear.
        clock: measures the device, unless another is given.
        sensor: reads the machine's state, unless another is given.

    Attributes:
        times_s: the seconds that go into pytest-benchmark's statistics.
        verdicts: of the gates so far.
        pages: text to be shown at the end of the session.
    """

    def __init__(
        self,
        *,
        key: str,
        markers: Sequence[str],
        machine: Machine,
        workload: Workload,
        digits: Digits,
        thresholds: Thresholds,
        report: Report,
        budget_s: float,
        clock: Clock | None = None,
        sensor: Sensor | None = None,
    ) -> None:
        self.key = key
        self._markers = list(markers)
        self.machine = machine
        self.workload = workload
        self.digits = digits
        self.thresholds = thresholds
        self.budget_s = budget_s
        self.clock = clock if clock is not None else clock_for(machine.device)
        self.sensor = sensor if sensor is not None else sensor_for(machine.device)
        self.times_s: list[float] = []
        self.verdicts: list[Verdict] = []
        self.pages: list[str] = []
        self._report = report
        self._metrics: dict[str, Metric] = {}
        self._config: dict[str, Any] = {
            "device": machine.device.type,
            "workload": workload.name,
            "batch_size": workload.batch_size,
            "data": digits.source,
        }
        self._arms: dict[str, Any] = {}
        self._raw: dict[str, Any] = {}
        self._operators: Profile | None = None
        self._state_before = self.sensor()

    @property
    def device(self) -> torch.device:
        """The device under test."""
        return self.machine.device

    @property
    def real_digits(self) -> Digits:
        """The digits, where something is to be learnt from them.

        Raises:
            DataError: they are synthetic.
        """
        if self.digits.source == "synthetic":
            raise DataError(
                f"{self.key}: nothing can be learnt from --perf-data synthetic; use mnist5k, or"
                " leave this benchmark out with -k"
            )
        return self.digits

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return a callback that shows how much of `what` is done."""
        return lambda done, of: self._report(what, done, of)

    def arm(self, precision: Precision, *, seed: int = 0) -> Arm:
        """Return a fresh arm of the workload, warmed up and back at its initial state."""
        return self.warm(self.workload.arm(precision, self.digits, seed), seed=seed)

    def warm(self, arm: Arm, *, seed: int = 0) -> Arm:
        """Warm an arm up until its blocks are steady, and note how that went."""
        self._report(f"warming up {arm.label}", 0, 1)
        warmed = warm_up(arm, self.clock, steps=self.workload.block_steps)
        with backend_flags(arm.precision):
            flags = read_flags()
        self._arms[arm.label] = {
            "precision": str(arm.precision),
            "seed": seed,
            "flags": flags,
            "steady": warmed.steady,
            "warm_up": [asdict(block) for block in warmed.blocks],
        }
        return arm

    def turn(self, arm: Arm, steps: int | None = None) -> Turn:
        """Return what times a block of a warm arm, and reads the machine's state around it."""
        steps = self.workload.block_steps if steps is None else steps
        return watched(lambda: time_block(arm, self.clock, steps), self.sensor)

    def time(self, arm: Arm, *, blocks: int) -> tuple[Block, ...]:
        """Time a fixed number of blocks of a warm arm, keep them, and return those to go by.

        Blocks in which the device was throttled are set aside, and that is said. Where they
        are most, all are returned and the benchmark is INCONCLUSIVE.
        """
        timed = self._take(str(arm.precision), self.turn(arm), blocks)
        self.configure(blocks=blocks, block_steps=self.workload.block_steps)
        self.keep("blocks", [asdict(block) for block in timed])
        sifted = sift(timed, lambda block: bool(block.throttled))
        self._tell_throttling(sifted, timed)
        self.times_s = [block.step_s for block in sifted.used]
        return sifted.used

    def _take(self, what: str, turn: Turn, blocks: int) -> tuple[Block, ...]:
        return time_blocks(turn, blocks=blocks, progress=self.progress(f"timing {what}"))

    def duet(
        self,
        first: Arm,
        second: Arm,
        judge: Callable[[Duet], Verdict],
        *,
        steps: int | None = None,
    ) -> Duet:
        """Time two warm arms in ABBA turns until `judge` can say; keep the blocks and its verdict.

        Sampling ends once its verdict is not INCONCLUSIVE, or after `budget_s`. Groups of four
        turns in which the device was throttled are set aside, and that is said.

        Args:
            first: arm A.
            second: arm B, whose times go into pytest-benchmark's statistics.
            judge: the gate, from what was timed so far.
            steps: in a block, if not the workload's.
        """
        timed = duet(
            self.turn(first, steps),
            self.turn(second, steps),
            clear=lambda so_far: judge(so_far).outcome is not Outcome.INCONCLUSIVE,
            budget_s=self.budget_s,
            progress=self.progress(f"{first.precision} and {second.precision} in turns"),
        )
        self.configure(block_steps=self.workload.block_steps if steps is None else steps)
        blocks = [asdict(block) for block in timed.blocks]
        arms = [first.label, second.label]
        self.keep("duet", {"order": timed.order, "arms": arms, "blocks": blocks})
        self._tell_throttling(timed.sifted, timed.blocks)
        self.times_s = [block.step_s for block in timed.blocks_of("B")]
        self.gate(judge(timed))
        return timed

    def _tell_throttling(self, sifted: Sifted[Any], blocks: Sequence[Block]) -> None:
        """Gate what was set aside; nothing is said where nothing was."""
        if sifted.set_aside:
            reasons = sorted({reason for block in blocks for reason in block.throttled})
            self.gate(throttling("throttling", sifted, reasons))

    def profile(self, arm: Arm) -> None:
        """Note where the time of a warm arm's step goes, once all of it is timed."""
        self._report(f"profiling {arm.precision}", 0, 1)
        self._operators = profile(arm, self.device)

    def configure(self, **settings: Any) -> None:
        """Note settings without which two figures must not be compared."""
        self._config.update(settings)

    def keep(self, name: str, raw: Any) -> None:
        """Keep raw figures for the run's JSON."""
        self._raw[name] = raw

    def timed(self, seconds: Iterable[float]) -> None:
        """Give seconds to pytest-benchmark's statistics, where no blocks were timed."""
        self.times_s = [float(second) for second in seconds]

    def metric(self, name: str, value: float, *, unit: str, better: str) -> None:
        """Note a positive figure that is to be compared with the baseline's.

        Raises:
            ValueError: it is not finite and positive, or `better` is neither "lower" nor
                "higher".
        """
        if not 0 < value < float("inf"):
            raise ValueError(f"metric {name} = {value!r}: must be finite and positive")
        if better not in ("lower", "higher"):
            raise ValueError(f"metric {name}: better = {better!r}: must be 'lower' or 'higher'")
        sign: Any = better
        self._metrics[name] = Metric(value=float(value), unit=unit, better=sign)

    def gate(self, *verdicts: Verdict) -> None:
        """Collect verdicts; what they mean for the benchmark is decided when it is done."""
        self.verdicts += verdicts

    def ungated(self) -> tuple[Verdict, ...]:
        """Return the figures as verdicts of their own, where no gate speaks of them.

        Throttling is no figure's gate.
        """
        if any(verdict.gate != "throttling" for verdict in self.verdicts):
            return ()
        return tuple(
            not_gated(name, f"{metric.value:.4g} {metric.unit}", "compared with a baseline only")
            for name, metric in self._metrics.items()
        )

    def show(self, page: str) -> None:
        """Show text at the end of the session."""
        self.pages.append(page)

    def comparable(self) -> Benchmark:
        """Return what a baseline is compared by."""
        return Benchmark(
            key=self.key,
            # As it will be read from a baseline, where a tuple is a list.
            config=msgspec.json.decode(encode(self._config)),
            metrics=self._metrics,
            verdicts=self.verdicts,
            operators=self._operators,
            state=self._state(),
        )

    def record(
        self, comparison: Sequence[Verdict] = (), reasons: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return everything that is known of this benchmark, for the run's JSON.

        Args:
            comparison: verdicts on its figures, held against a baseline's.
            reasons: why those may have moved, a line each.
        """
        return {
            "key": self.key,
            "markers": self._markers,
            "config": self._config,
            "metrics": self._metrics,
            "verdicts": [asdict(verdict) for verdict in (*self.verdicts, *comparison)],
            "reasons": list(reasons),
            "arms": self._arms,
            "operators": self._operators,
            "raw": self._raw,
            "state": self._state(),
        }

    def _state(self) -> dict[str, dict[str, Any]]:
        return {"before": asdict(self._state_before), "after": asdict(self.sensor())}
