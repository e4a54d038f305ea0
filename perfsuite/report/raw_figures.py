"""What benchmarks kept of their raw figures, read back from a run by its shape.

A suite may keep whatever it likes under any name: what has another shape than the benchmarks
of perfsuite give it is not an error, and not shown.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import msgspec

from perfsuite.judging.blocks import Block
from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.gains import LeverTried
from perfsuite.judging.host_bound import Load
from perfsuite.judging.scaling import Scaling
from perfsuite.judging.throttling import sift
from perfsuite.judging.top_rung import Convolution
from perfsuite.records.operators import Profile
from perfsuite.records.schema import Benchmark
from perfsuite.records.wording import short_name

ShapeT = TypeVar("ShapeT")

ArmBlock = tuple[str, Block]
"""A block, and the name of its arm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Blocks of one benchmark, in the order in which they were timed.

    Attributes:
        groups: what was timed together and is set aside together: a block, or four of two arms. By
            process, or pair of processes.
    """

    name: str  # of the benchmark, and of what it timed where that is more than one thing
    arms: tuple[str, ...]  # names of one or two arms
    groups: tuple[tuple[tuple[ArmBlock, ...], ...], ...]

    @property
    def blocks(self) -> list[ArmBlock]:
        """All of them, in the order in which they were timed."""
        return [block for process in self.groups for group in process for block in group]

    def set_aside(self, arm: str) -> int:
        """Return how many blocks of an arm are not among `values_s`."""
        return sum(name == arm for name, _ in self.blocks) - sum(map(len, self._kept_s(arm)))

    def values_s(self, arm: str) -> list[float]:
        """Return an arm's seconds a step, by what is one observation of it.

        That is a block where all were timed in one process, and otherwise the median of a
        process. Throttled blocks are set aside as for the verdicts.
        """
        kept = self._kept_s(arm)
        return kept[0] if len(self.groups) == 1 else [median(each) for each in kept]

    def _kept_s(self, arm: str) -> list[list[float]]:
        """Return the seconds a step of blocks that were not set aside, by process."""
        processes = [
            sift(process, lambda group: any(block.throttled for _, block in group))
            for process in self.groups
        ]
        used = sift(processes, lambda process: not process.decides).used
        return [
            [block.step_s for group in process.used for name, block in group if name == arm]
            for process in used
        ]


class LossCurve(msgspec.Struct, frozen=True, kw_only=True):
    """One run of training; None is a loss or a scale that was not finite."""

    losses: list[float | None]
    skipped_steps: int | None = None
    scales: list[float | None] = []


class LossPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of training from one seed."""

    seed: int
    reference: LossCurve
    candidate: LossCurve


class _Precisions(msgspec.Struct, frozen=True, kw_only=True):
    reference: str = "reference"
    candidate: str = "mixed precision"


class _TurnsRecord(msgspec.Struct, frozen=True, kw_only=True):
    order: str
    blocks: list[Block]
    arms: tuple[str, str] = ("A", "B")

    def __post_init__(self) -> None:
        """Check that each block has its arm, in groups of four."""
        if len(self.order) != len(self.blocks) or len(self.order) % 4 or set(self.order) - {*"AB"}:
            raise ValueError("order and blocks must belong together")
        if not _all_took_time(self.blocks):
            raise ValueError("blocks must take time")

    @property
    def both(self) -> tuple[str, str]:
        """The names of its arms, which differ."""
        return self.arms if self.arms[0] != self.arms[1] else ("A", "B")

    def quads(self, arms: tuple[str, str]) -> tuple[tuple[ArmBlock, ...], ...]:
        """Return its groups of four."""
        names = dict(zip("AB", arms, strict=True))
        turns = list(zip(map(names.__getitem__, self.order), self.blocks, strict=True))
        return tuple(tuple(turns[start : start + 4]) for start in range(0, len(turns), 4))


class _RestartRecord(msgspec.Struct, frozen=True, kw_only=True):
    turns: dict[str, _TurnsRecord]


class _Against(msgspec.Struct, frozen=True, kw_only=True):
    restarts: list[_RestartRecord]
    profiles: dict[str, Profile | None] = {}


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """The peak of one precision's training on a GPU."""

    allocated_bytes: float
    reserved_bytes: float


class TriedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was tried; without a peak it did not fit."""

    samples: int
    peak_bytes: float | None = None


class TriedBatches(msgspec.Struct, frozen=True, kw_only=True):
    """All that were tried in one precision, and how many samples the largest has that fits."""

    samples: int
    tries: list[TriedBatch]

    @property
    def peaks(self) -> dict[int, float | None]:
        """The peak of each, by its samples."""
        return {each.samples: each.peak_bytes for each in self.tries}


class MemoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark of memory found, by precision."""

    activation_bytes_per_image: dict[str, float] = {}
    peaks: dict[str, Peak] = {}
    largest_batches: dict[str, TriedBatches] = {}


def _all_took_time(blocks: Sequence[Block]) -> bool:
    times_s = (time_s for block in blocks for time_s in (block.step_s, block.wall_s))
    return all(0 < time_s < math.inf for time_s in times_s)


def _shaped(raw: Any, shape: type[ShapeT]) -> ShapeT | None:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError:
        return None


def timings(benchmark: Benchmark) -> list[Timing]:
    """Return everything that a benchmark timed in blocks."""
    name = short_name(benchmark.key)
    if benchmark.against is not None:
        return _turns_of_trees(benchmark.against, name, ("before", "after"))
    found = []
    blocks = _shaped(benchmark.raw.get("blocks"), list[Block])
    duet, strong = (
        _shaped(benchmark.raw.get(kept), _TurnsRecord) for kept in ("duet", "duet strong")
    )
    if blocks and _all_took_time(blocks):
        arm = next(iter(benchmark.arms), name)
        own = name if duet is None else f"{name}: {arm} alone"
        groups = tuple(((arm, block),) for block in blocks)
        found.append(Timing(name=own, arms=(arm,), groups=(groups,)))
    for what, each in ((name, duet), (f"{name}: strong scaling", strong)):
        if each is not None and each.blocks:
            found.append(Timing(name=what, arms=each.both, groups=(each.quads(each.both),)))
    if benchmark.confirmation is not None:
        again, arms = f"{name}: measured again", ("promoted", "now")
        found += _turns_of_trees(benchmark.confirmation.turns, again, arms)
    return found


def _turns_of_trees(against: dict[str, Any], name: str, arms: tuple[str, str]) -> list[Timing]:
    shaped = _shaped(against, _Against)
    if shaped is None or not shaped.restarts:
        return []
    timed = [
        what for what in shaped.restarts[0].turns if all(what in r.turns for r in shaped.restarts)
    ]
    return [
        Timing(
            name=name if what == "step_s" else f"{name} {what}",
            arms=arms,
            groups=tuple(each.turns[what].quads(arms) for each in shaped.restarts),
        )
        for what in timed
    ]


def seed_pairs(benchmark: Benchmark) -> tuple[tuple[str, str], list[LossPair]]:
    """Return the names of two precisions, and what was trained in both from each seed."""
    pairs = _shaped(benchmark.raw.get("pairs"), list[LossPair]) or []
    named = _shaped(benchmark.raw.get("precisions", {}), _Precisions) or _Precisions()
    if named.reference == named.candidate:
        named = _Precisions()
    return (named.reference, named.candidate), pairs


def memory(benchmark: Benchmark) -> MemoryFigures:
    """Return what memory each precision takes; empty where that was not measured."""
    return _shaped(benchmark.raw, MemoryFigures) or MemoryFigures()


def loads(benchmark: Benchmark) -> list[Load]:
    """Return who was busy in a step of each arm, host or device; nothing where they are one."""
    found = _shaped(benchmark.raw.get("loads"), dict[str, Load]) or {}
    return [load for load in found.values() if load.device_s > 0]


def rates(benchmark: Benchmark) -> dict[str, float]:
    """Return what a step does in a second, by unit, and its share of the device's ceiling."""
    found = _shaped(benchmark.raw.get("throughput"), dict[str, float]) or {}
    return {name: rate for name, rate in found.items() if 0 < rate < math.inf}


def ceilings(benchmark: Benchmark) -> Ceilings | None:
    """Return the most that the device was seen to do, None where nobody asked."""
    return _shaped(benchmark.raw.get("ceilings"), Ceilings)


def levers(benchmark: Benchmark) -> list[LeverTried]:
    """Return what came of each lever that was tried, and of the step that they began with."""
    return _shaped(benchmark.raw.get("levers"), list[LeverTried]) or []


def convolutions(benchmark: Benchmark) -> list[Convolution]:
    """Return the largest convolutions of a ladder's top rung, each timed by itself."""
    return _shaped(benchmark.raw.get("convolutions"), list[Convolution]) or []


def scalings(benchmark: Benchmark) -> list[Scaling]:
    """Return how well all ranks scale, beside one alone: a way each."""
    return _shaped(benchmark.raw.get("scaling"), list[Scaling]) or []


def profiles(benchmark: Benchmark) -> tuple[Profile | None, Profile | None]:
    """Return where the time of a step goes: before, and now; before is known of two trees only."""
    shaped = _shaped(benchmark.against, _Against)
    if shaped is None:
        return None, benchmark.operators
    return shaped.profiles.get("before"), shaped.profiles.get("after")
