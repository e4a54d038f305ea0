"""thresholds.toml: what is required on each hardware, validated before anything is measured.

A table has the name of its gate, except for `[convergence]`, of the gates `mean_loss`,
`skipped_steps` and `final_scale`, `[memory]`, of `activation_ratio`, `peak_ratio` and
`largest_batch`, and `[scaling]`, of `weak_scaling` and `strong_scaling`.
`[compare]`, `[creep]` and `[against]` hold for each figure that is compared. The gates `finite`,
`probe NAME` and `throttling` have no table, since there is nothing to choose. What a suite's file,
or the lack of one, leaves open is as in `defaults.toml` beside this module.
"""

import math
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from perfsuite.judging.hardware import current_key

FILE_NAME = "thresholds.toml"
SIMULATED_KEY = "simulated-"
"""What keys of simulated hardware begin with."""
_BUILT_IN = Path(__file__).with_name("defaults.toml")

Positive = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Confidence = Annotated[float, msgspec.Meta(ge=0.5, le=0.996)]
"""At more, the nine pairs of the first look could not carry the interval."""
Pair = Literal["fp16-vs-fp32", "fp16-vs-tf32", "bf16-vs-fp32", "bf16-vs-tf32", "tf32-vs-fp32"]
Gate = Literal[
    "amp_speedup",
    "speedup",
    "mean_loss",
    "finite",
    "skipped_steps",
    "final_scale",
    "activation_ratio",
    "peak_ratio",
    "largest_batch",
    "harness_overhead",
    "loader",
    "stalls",
    "slow_ranks",
    "communication",
    "weak_scaling",
    "strong_scaling",
    "compare",
    "creep",
    "against",
    "probe",
    "throttling",
]


class ThresholdsError(ValueError):
    """A thresholds.toml that is unreadable or requires the impossible."""


class SpeedupLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a precision must gain, as a ratio of step times, by pair of precisions."""

    min: dict[Pair, Positive] = {}
    confidence: Confidence = 0.99

    def minimum(self, amp: str, reference: str) -> float | None:
        """Return what `amp` must gain over `reference`, None where nothing is required."""
        return {str(pair): least for pair, least in self.min.items()}.get(f"{amp}-vs-{reference}")


class ConvergenceLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How closely mixed precision must train like the reference, and the scaler's health."""

    margin: Positive
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.25)] = 0.01
    max_skipped: Fraction
    min_scale: Positive
    max_scale: Positive

    def __post_init__(self) -> None:
        """Refuse a range of scales that is empty."""
        if self.min_scale > self.max_scale:
            raise ValueError("min_scale must not be above max_scale")


class MemoryLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much memory mixed precision may take, as a ratio to the reference's."""

    max_activation_ratio: Positive | None = None
    max_peak_ratio: Positive | None = None
    min_largest_batch: Positive | None = None


class LoaderLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much longer a step may take that is fed by the loader than one fed by the device."""

    max_ratio: Positive | None = None
    confidence: Confidence = 0.99


class StallsLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much longer stalls may make the mean step, beside what they do in float32."""

    max_ratio: Positive | None = None
    confidence: Confidence = 0.99


class SlowRanksLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what share a rank may compute for longer than the others do, each by itself."""

    margin: Positive = 0.05
    confidence: Confidence = 0.99  # that no rank is named wrongly, however many there are


class CommunicationLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What share of a step ranks may wait for what they tell each other."""

    max_exposed: Fraction | None = None
    confidence: Confidence = 0.99


class ScalingLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least efficiency of all ranks beside one alone.

    Attributes:
        weak: each of them with as large a batch as that one.
        strong: all of them together.
    """

    weak: Positive | None = None
    strong: Positive | None = None
    confidence: Confidence = 0.99


class OverheadLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much slower the measured step may be than a bare hand-written loop."""

    max: Positive | None = None
    confidence: Confidence = 0.99


class CompareLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The comparison with promoted runs.

    Attributes:
        margin: the smallest relative worsening worth reporting.
        assumed_spread: standard deviation of the log of a figure between runs, taken where fewer
            than three runs were promoted and nothing else is known of it.
        confidence: that a figure which is worse by the margin is suspected.
        environment: whether a figure fails that became worse although its code did not.
    """

    margin: Positive
    assumed_spread: Fraction
    environment: Literal["fail", "warn"]
    confidence: Annotated[float, msgspec.Meta(ge=0.75, lt=1)] = 0.99


class CreepLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all accepted baselines together may have lost.

    Attributes:
        margin: relative worsening from the first to the present one.
        since: tag or commit whose baseline counts as the first; None: the first there is.
    """

    margin: Positive = 0.1
    since: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class AgainstLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The comparison with another tree; `margin` is the smallest change worth reporting."""

    margin: Positive = 0.05
    confidence: Confidence = 0.99


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is required on one hardware; INCONCLUSIVE of a gate in `warn` fails nothing."""

    warn: tuple[Gate, ...] = ()
    amp_speedup: SpeedupLimits = SpeedupLimits()
    convergence: ConvergenceLimits
    memory: MemoryLimits = MemoryLimits()
    harness_overhead: OverheadLimits = OverheadLimits()
    loader: LoaderLimits = LoaderLimits()
    stalls: StallsLimits = StallsLimits()
    slow_ranks: SlowRanksLimits = SlowRanksLimits()
    communication: CommunicationLimits = CommunicationLimits()
    scaling: ScalingLimits = ScalingLimits()
    compare: CompareLimits
    creep: CreepLimits = CreepLimits()
    against: AgainstLimits = AgainstLimits()


def load_thresholds(path: Path, hardware: str) -> Thresholds:
    """Read the thresholds of `hardware` (its key): built-in ones, overlaid by a file's, if any.

    ``[hardware."PATTERN"]`` tables match the key as shell patterns do, and later ones win. What is
    simulated is held to what the hardware is that it stands for.

    Raises:
        ThresholdsError: the file cannot be read or is not TOML, or any table of it, matching or
            not, has an unknown key or an impossible value.
    """
    hardware = hardware.removeprefix(SIMULATED_KEY)
    merged: dict[str, Any] = {}
    for file in (_BUILT_IN, path):
        document = _read(file) if file is _BUILT_IN or file.exists() else {}
        defaults = _overlay(merged, _table(file, "defaults", document.get("defaults", {})))
        _validate(file, "defaults", defaults)
        merged = defaults
        for pattern, value in _table(file, "hardware", document.get("hardware", {})).items():
            name = f'hardware."{pattern}"'
            table = _table(file, name, value)
            # Checked whether or not it matches: a typing error must not wait for that hardware.
            _validate(file, name, _overlay(defaults, table))
            if fnmatchcase(hardware, pattern) or _meant(pattern, hardware):
                merged = _overlay(merged, table)
    return _validate(path, "defaults and the tables that match", merged)


def _meant(pattern: str, hardware: str) -> bool:
    """Tell whether a pattern was written for a key when GPUs had their own names for keys."""
    return current_key(pattern) == hardware or fnmatchcase(
        hardware.removeprefix("nvidia-"), pattern
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThresholdsError(f"{path}: cannot be read: {error}") from error
    unknown = sorted(document.keys() - {"defaults", "hardware"})
    if unknown:
        known = '[defaults] and [hardware."PATTERN"]'
        raise ThresholdsError(f"{path}: unknown table [{unknown[0]}]; known are {known}")
    return document


def _table(path: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ThresholdsError(f"{path}: [{name}] must be a table, not {value!r}")
    return value


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _overlay(old, value)  # noqa: PLW2901  # the table below, overlaid
        merged[key] = value
    return merged


def _validate(path: Path, name: str, table: Mapping[str, Any]) -> Thresholds:
    _refuse_non_finite(path, name, table)
    try:
        return msgspec.convert(table, Thresholds)
    except msgspec.ValidationError as error:
        raise ThresholdsError(f"{path}: [{name}]: {error}") from None


def _refuse_non_finite(path: Path, name: str, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, dict):
            _refuse_non_finite(path, f"{name}.{key}", value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ThresholdsError(f"{path}: [{name}] {key} = {value}: must be a finite number")
