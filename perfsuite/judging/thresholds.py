"""thresholds.toml: what is asked of each hardware, validated before anything is measured."""

import math
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

FILE_NAME = "thresholds.toml"

Positive = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Confidence = Annotated[float, msgspec.Meta(ge=0.5, le=0.996)]
"""At more, the twelve pairs of the first look could not carry the interval."""
Pair = Literal["fp16-vs-fp32", "fp16-vs-tf32", "bf16-vs-fp32", "bf16-vs-tf32", "tf32-vs-fp32"]
Gate = Literal[
    "amp_speedup",
    "mean_loss",
    "finite",
    "skipped_steps",
    "final_scale",
    "activation_ratio",
    "peak_ratio",
    "harness_overhead",
    "loader",
    "compare",
    "against",
    "probe",
    "throttling",
]


class ThresholdsError(ValueError):
    """A thresholds.toml that is missing, unreadable or asks for the impossible."""


class Speedup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a precision must gain, as a ratio of step times, by pair of precisions."""

    min: dict[Pair, Positive] = {}
    confidence: Confidence = 0.99

    def minimum(self, amp: str, reference: str) -> float | None:
        """Return what `amp` must gain over `reference`, or None where nothing is asked."""
        return {str(pair): least for pair, least in self.min.items()}.get(f"{amp}-vs-{reference}")


class Convergence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How closely mixed precision must train like the reference, and the scaler's health."""

    margin: Positive
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.25)] = 0.01
    max_skipped: Fraction
    min_scale: Positive
    max_scale: Positive

    def __post_init__(self) -> None:
        """Hold that the band of scales is one."""
        if self.min_scale > self.max_scale:
            raise ValueError("min_scale must not be above max_scale")


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much memory mixed precision may take, as a ratio to the reference's."""

    max_activation_ratio: Positive | None = None
    max_peak_ratio: Positive | None = None


class Loader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much longer a step may take that is fed by the loader than one fed by the device."""

    max_ratio: Positive | None = None
    confidence: Confidence = 0.99


class Overhead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much slower the measured step may be than a bare hand-written loop."""

    max: Positive | None = None
    confidence: Confidence = 0.99


class Compare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The comparison with promoted runs.

    Attributes:
        margin: the smallest relative worsening worth reporting.
        assumed_spread: standard deviation of the log of a figure between runs, taken where
            fewer than three runs were promoted.
    """

    margin: Positive
    assumed_spread: Fraction
    confidence: Confidence = 0.99


class Against(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The comparison with another tree, side by side.

    Attributes:
        margin: the smallest relative change worth reporting.
    """

    margin: Positive = 0.05
    confidence: Confidence = 0.99


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything asked of one hardware.

    Attributes:
        warn: gates whose INCONCLUSIVE is shown but does not fail the item.
    """

    warn: tuple[Gate, ...] = ()
    amp_speedup: Speedup = Speedup()
    convergence: Convergence
    memory: Memory = Memory()
    harness_overhead: Overhead = Overhead()
    loader: Loader = Loader()
    compare: Compare
    against: Against = Against()


def load_thresholds(path: Path, hardware: str) -> Thresholds:
    """Read the thresholds of `hardware` (its key): the defaults, overlaid by what matches it.

    ``[hardware."PATTERN"]`` tables match the key as shell patterns do and apply in the order
    in which they stand.

    Raises:
        ThresholdsError: the file is missing or not TOML, or a table of it, matching or not,
            has an unknown key or an impossible value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ThresholdsError(f"{path}: no such file; a suite needs its thresholds") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThresholdsError(f"{path}: cannot be read: {error}") from error
    unknown = sorted(document.keys() - {"defaults", "hardware"})
    if unknown:
        known = '[defaults] and [hardware."PATTERN"]'
        raise ThresholdsError(f"{path}: unknown table [{unknown[0]}]; known are {known}")
    defaults = _table(path, "defaults", document.get("defaults", {}))
    tables = _table(path, "hardware", document.get("hardware", {}))
    merged = defaults
    _validate(path, "defaults", defaults)
    for pattern, table in tables.items():
        name = f'hardware."{pattern}"'
        # Each is checked whether or not it matches: a typing error must not wait for the GPU.
        _validate(path, name, _overlay(defaults, _table(path, name, table)))
        if fnmatchcase(hardware, pattern):
            merged = _overlay(merged, table)
    return _validate(path, "defaults and the tables that match", merged)


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
