"""What a benchmark file works with: the fixture ``perf``, an instance of `Bench`.

It ties the parts together for one benchmark: builds arms, times them, keeps every raw figure
for the run's JSON, and collects verdicts. It knows nothing of pytest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import torch

from perfsuite.data import DataError, Digits, load_digits
from perfsuite.device import Hardware, choose_device, hardware, machine_state, software
from perfsuite.gates import Verdict, not_gated
from perfsuite.precision import Precision, backend_flags, read_flags, supported
from perfsuite.runs import Benchmark, Metric, VerdictRecord, encode
from perfsuite.thresholds import Thresholds
from perfsuite.timing import Block, Clock, Duet, clock_for, duet, time_blocks, warm_up
from perfsuite.workload import WORKLOADS, Arm, Workload

__all__ = ["Bench", "Machine", "machine"]

Report = Callable[[str, int, int], None]
"""Called with what is being done, how many parts of it are done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on; the same for all its benchmarks."""

    device: torch.device
    hardware: Hardware
    software: dict[str, Any]
    precisions: tuple[Precision, ...]
    default_workload: Workload

    @property
    def amp(self) -> tuple[Precision, ...]:
        """The mixed precisions that the device can do."""
        return tuple(precision for precision in self.precisions if precision.is_amp)

    @property
    def references(self) -> tuple[Precision, ...]:
        """The precisions that mixed precision is held against."""
        return tuple(precision for precision in self.precisions if not precision.is_amp)

    def load(self, source: str) -> Digits:
        """Return digits on the device; raises DataError."""
        return load_digits(source, self.device)


def machine(wanted: str, workload: str | None) -> Machine:
    """Return the machine for "auto", "cuda" or "cpu", and a preset's name or its own choice.

    Raises:
        DeviceError: CUDA was asked for and there is none.
    """
    device = choose_device(wanted)
    name = workload or ("tutorial" if device.type == "cuda" else "tiny")
    return Machine(
        device=device,
        hardware=hardware(device),
        software=software(device),
        precisions=supported(device),
        default_workload=WORKLOADS[name],
    )


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
        clock: measures the device, unless another is given.

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
        clock: Clock | None = None,
    ) -> None:
        self.key = key
        self._markers = list(markers)
        self.machine = machine
        self.workload = workload
        self.digits = digits
        self.thresholds = thresholds
        self.clock = clock if clock is not None else clock_for(machine.device)
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
        self._state_before = machine_state(machine.device)

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
        return self.warm(str(precision), self.workload.arm(precision, self.digits, seed), seed=seed)

    def warm(self, label: str, arm: Arm, *, seed: int = 0) -> Arm:
        """Warm an arm up until its blocks are steady, and note how that went."""
        self._report(f"warming up {label}", 0, 1)
        warmed = warm_up(arm, self.clock, steps=self.workload.block_steps)
        with backend_flags(arm.precision):
            flags = read_flags()
        self._arms[label] = {
            "precision": str(arm.precision),
            "seed": seed,
            "flags": flags,
            "steady": warmed.steady,
            "warm_up": [asdict(block) for block in warmed.blocks],
        }
        return arm

    def time(self, arm: Arm, *, blocks: int) -> tuple[Block, ...]:
        """Time a fixed number of blocks of a warm arm, and keep them."""
        steps = self.workload.block_steps
        show = self.progress(f"timing {arm.precision}")
        timed = time_blocks(arm, self.clock, blocks=blocks, steps=steps, progress=show)
        self.configure(blocks=blocks, block_steps=steps)
        self.times_s = [block.step_s for block in timed]
        self.keep("blocks", [asdict(block) for block in timed])
        return timed

    def duet(self, first: Arm, second: Arm, *, quads: int) -> Duet:
        """Time two warm arms in ABBA turns, and keep the blocks of both."""
        steps = self.workload.block_steps
        show = self.progress(f"{first.precision} and {second.precision} in turns")
        timed = duet(first, second, self.clock, quads=quads, steps=steps, progress=show)
        self.configure(quads=quads, block_steps=steps)
        self.times_s = [block.step_s for block in timed.of("B")]
        self.keep("duet", {"order": timed.order, "blocks": [asdict(b) for b in timed.blocks]})
        return timed

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
        """Return the figures as verdicts of their own, where no gate speaks of them."""
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
            verdicts=[VerdictRecord(gate=v.gate, outcome=v.outcome) for v in self.verdicts],
        )

    def record(self, comparison: Sequence[Verdict]) -> dict[str, Any]:
        """Return everything that is known of this benchmark, for the run's JSON."""
        return {
            "key": self.key,
            "markers": self._markers,
            "config": self._config,
            "metrics": {
                name: {"value": m.value, "unit": m.unit, "better": m.better}
                for name, m in self._metrics.items()
            },
            "verdicts": [asdict(verdict) for verdict in (*self.verdicts, *comparison)],
            "arms": self._arms,
            "raw": self._raw,
            "state": {"before": self._state_before, "after": machine_state(self.device)},
        }
