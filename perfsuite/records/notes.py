"""What one benchmark leaves behind, noted while it runs and made into its record once."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from perfsuite.judging.blocks import State
from perfsuite.judging.ceilings import ABOVE, SHARE_GATE
from perfsuite.judging.contamination import contamination
from perfsuite.judging.estimates import SampleError, median_s
from perfsuite.judging.gates import Verdict, not_gated
from perfsuite.records.schema import Benchmark, Metric, encode

if TYPE_CHECKING:
    from perfsuite.records.operators import Profile


class Notes:
    """The notes on the benchmark that baselines know as `key`."""

    def __init__(self, key: str, *, markers: Iterable[str]) -> None:
        self.key = key
        self.times_s: list[float] = []  # for pytest-benchmark's statistics
        self.verdicts: list[Verdict] = []
        self.pages: list[str] = []  # shown at the end of the session
        self.operators: Profile | None = None  # None until it was profiled
        self._markers = list(markers)
        self.config: dict[str, Any] = {}
        self._metrics: dict[str, Metric] = {}
        self._arms: dict[str, Any] = {}
        self._raw: dict[str, Any] = {}

    def configure(self, **settings: Any) -> None:
        """Note settings without which two figures must not be compared."""
        self.config.update(settings)

    def keep(self, name: str, raw: Any) -> None:
        """Keep raw figures for the run's JSON."""
        self._raw[name] = raw

    def timed(self, seconds: Iterable[float]) -> None:
        """Give seconds to pytest-benchmark's statistics, where no blocks were timed."""
        self.times_s = [float(second) for second in seconds]

    def fault(self) -> str | None:
        """Return why its seconds cannot be used, None if they can."""
        try:
            median_s(self.times_s)
        except SampleError as error:
            return str(error)
        return None

    def metric(
        self, name: str, value: float, *, unit: str, better: Literal["lower", "higher"]
    ) -> None:
        """Note a figure to compare with the baseline's; ValueError if not finite and positive."""
        if not 0 < value < float("inf"):
            raise ValueError(f"metric {name} = {value!r}: must be finite and positive")
        if better not in ("lower", "higher"):
            raise ValueError(f"metric {name}: better = {better!r}: must be 'lower' or 'higher'")
        self._metrics[name] = Metric(value=float(value), unit=unit, better=better)

    def gate(self, *verdicts: Verdict) -> None:
        """Collect verdicts; what they mean for the benchmark is decided when it is done."""
        self.verdicts += verdicts

    def show(self, page: str) -> None:
        """Show text at the end of the session."""
        self.pages.append(page)

    def arm(self, label: str, **about: Any) -> None:
        """Note how an arm was warmed up."""
        self._arms[label] = about

    def ungated(self) -> tuple[Verdict, ...]:
        """Return the figures as verdicts of their own, where no gate speaks of them."""
        # Who was busy, and throttling, are no figure's gate.
        if any(verdict.gate not in ("host_bound", "throttling") for verdict in self.verdicts):
            return ()
        return tuple(
            not_gated(name, f"{metric.value:.4g} {metric.unit}", "compared with a baseline only")
            for name, metric in self._metrics.items()
        )

    def record(self, before: State, after: State) -> Benchmark:
        """Return everything known of the benchmark, with the machine's state around it.

        A ceiling that was measured beside other work is a lower one, and a share above it no error.
        """
        state = {"before": asdict(before), "after": asdict(after)}
        beside = contamination(state, {}, promoted=())
        return Benchmark(
            key=self.key,
            # As it will be read from a baseline, where a tuple is a list.
            config=msgspec.json.decode(encode(self.config)),
            metrics=self._metrics,
            verdicts=[
                replace(beside.excuse(each), reason=f"{beside.why}; {each.reason}")
                if beside.reasons and (each.gate, each.figure) == (SHARE_GATE, ABOVE)
                else each
                for each in self.verdicts
            ],
            markers=self._markers,
            operators=self.operators,
            state=state,
            arms=self._arms,
            raw=self._raw,
        )
