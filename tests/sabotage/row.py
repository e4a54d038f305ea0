"""What a row of the catalogue is, and when it holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes.registry import PROBES
from perfsuite.training.step import TrainStep
from sabotage.environments import Check, MakeModel, probed, two_convolutions

_PROBES = {f"probe {probe.name}": probe for probe in PROBES}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueRow:
    """One planted bug beside its healthy twin.

    Attributes:
        number: in the catalogue, from 1; a bug with several faces has several rows.
        plant: what is wrong, in a few words; no two rows share it.
        because: by gate that must turn red, what its line must say: the right reason.
        healthy: the same without the bug; every verdict must be PASS.
        planted: the bug; every gate must be FAIL.
        needs_cuda: it does not show on a CPU.
        on: returns the same row on another model; None where it has a model of its own.
    """

    number: int
    plant: str
    because: Mapping[str, str]
    healthy: Check
    planted: Check
    needs_cuda: bool = False
    on: Callable[[MakeModel], "CatalogueRow"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", MappingProxyType(dict(self.because)))

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that must turn red."""
        return tuple(self.because)


def probe_row(
    number: int,
    plant: str,
    kind: type[TrainStep],
    precision: Precision,
    because: Mapping[str, str],
    *,
    twin: type[TrainStep] = TrainStep,
    model: MakeModel = two_convolutions,
) -> CatalogueRow:
    """Return a row whose bug is in the step, and whose gates are all probes."""
    probes = [_PROBES[gate] for gate in because]
    return CatalogueRow(
        number=number,
        plant=plant,
        because=because,
        healthy=probed(twin, precision, *probes, model=model),
        planted=probed(kind, precision, *probes, model=model),
        on=lambda other: probe_row(number, plant, kind, precision, because, twin=twin, model=other),
    )


def not_green(row: CatalogueRow, verdicts: Sequence[Verdict]) -> list[str]:
    """Return what is wrong with the verdicts on the healthy twin."""
    wrong = [str(verdict) for verdict in verdicts if verdict.outcome is not Outcome.PASS]
    missing = set(row.gates) - {verdict.gate for verdict in verdicts}
    return wrong + [f"{gate} was not judged" for gate in sorted(missing)]


def not_red(row: CatalogueRow, verdicts: Sequence[Verdict]) -> list[str]:
    """Return what is wrong with the verdicts on the planted bug: not red, or for a wrong reason."""
    wrong = []
    for gate, because in row.because.items():
        lines = [str(v) for v in verdicts if v.gate == gate and v.outcome is Outcome.FAIL]
        if not lines:
            wrong.append(f"{gate} did not fail")
        elif not any(because in line for line in lines):
            wrong.append(f"{gate} failed, but not with {because!r}: {lines[0]}")
    return wrong
