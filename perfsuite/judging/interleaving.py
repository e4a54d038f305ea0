"""Interleaving: two arms take turns, block by block, so that what slows the machine slows both.

Timings in one process agree better than timings in two, since where memory lies is decided once a
process. So whatever is compared between processes has the process for its unit of replication: a
pair of fresh ones counts as one observation, however many blocks it took.

(Interleaved trials: Abedi and Brecht, ICPE 2017. The name is from Bulej et al., ICPE 2020, whose
duets run at the same time; on one device they would slow each other.)
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from perfsuite.judging.blocks import Block, Turn, resting_collector
from perfsuite.judging.estimates import Estimate, SampleError, paired_ratio
from perfsuite.judging.stopping import ShowCount, at_each_look, sample
from perfsuite.judging.throttling import Sifted, sift


@dataclass(frozen=True, slots=True, kw_only=True)
class Quad:
    """Four turns, two of each arm, in which both have the same mean position in time.

    A steady drift of the machine cancels in the ratio of their means.
    """

    order: str  # "ABBA" or "BAAB", A for the first arm and B for the second
    blocks: tuple[Block, ...]  # the four blocks in the order in which they were timed

    def of(self, letter: str) -> tuple[Block, ...]:
        """Return the two blocks of one arm."""
        pairs = zip(self.order, self.blocks, strict=True)
        return tuple(block for turn, block in pairs if turn == letter)

    def step_s(self, letter: str) -> float:
        """Return an arm's seconds a step, the mean of its two blocks."""
        return fmean(block.step_s for block in self.of(letter))

    @property
    def neighbours(self) -> tuple[dict[str, float], ...]:
        """Seconds a step of both arms in its first two turns, and in its last two, by letter."""
        turns = [(arm, block.step_s) for arm, block in zip(self.order, self.blocks, strict=True)]
        return dict(turns[:2]), dict(turns[2:])

    @property
    def throttled(self) -> bool:
        """Whether the device was throttled in any of its blocks."""
        return any(block.throttled for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Duet:
    """Quads in the order in which they were timed. Those that were throttled are set aside."""

    quads: tuple[Quad, ...]

    @classmethod
    def of_turns(cls, order: str, blocks: Sequence[Block]) -> "Duet":
        """Return the duet of which these are `order` and `blocks`."""
        fours = [slice(at, at + 4) for at in range(0, len(blocks), 4)]
        return cls(tuple(Quad(order=order[each], blocks=tuple(blocks[each])) for each in fours))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, those set aside too, in the order in which they were timed."""
        return tuple(block for each in self.quads for block in each.blocks)

    @property
    def order(self) -> str:
        """The arms of `blocks`, a letter each."""
        return "".join(each.order for each in self.quads)

    def kept(self, *arms: str) -> dict[str, Any]:
        """Return it as a run keeps it, with the names of both arms."""
        blocks = [block.kept() for block in self.blocks]
        return {"order": self.order, "arms": list(arms), "blocks": blocks}

    @property
    def sifted(self) -> Sifted[Quad]:
        """The quads, and those in which the device was not throttled."""
        return sift(self.quads, lambda each: each.throttled)

    def blocks_of(self, letter: str) -> list[Block]:
        """Return an arm's blocks, without those that were set aside."""
        return [block for each in self.sifted.used for block in each.of(letter)]

    def times_s(self, letter: str) -> tuple[float, ...]:
        """Return an arm's seconds a step, by quad."""
        return tuple(each.step_s(letter) for each in self.sifted.used)

    def ratio(self, letter: str, *, over: str, confidence: float) -> Estimate:
        """Return how many times longer one arm takes than the other, after sampling by looks.

        It is unknown, with the reason, where throttling left too few quads.

        Raises:
            SampleError: there never were enough.
        """
        sifted = self.sifted
        confidence = at_each_look(confidence, len(sifted.kept))
        aside = f"{sifted.set_aside} of {len(self.quads)} groups were throttled and set aside"
        if not sifted.decides:
            return Estimate.no_answer(aside)
        try:
            return paired_ratio(self.times_s(letter), self.times_s(over), confidence=confidence)
        except SampleError as error:
            if not sifted.set_aside:
                raise
            return Estimate.no_answer(f"{aside}: {error}")

    def point(self, letter: str, *, over: str) -> float:
        """Return the ratio in this duet alone: the median over neighbours, two turns of a quad.

        A stall reaches one of a quad's two pairs, and half of all may be lost to it. A steady
        drift has one sign in half of them and the other in the rest.
        """
        pairs = [pair for each in self.sifted.used for pair in each.neighbours]
        logs = [math.log(pair[letter]) - math.log(pair[over]) for pair in pairs]
        return math.exp(median(logs))


def quad(first: Turn, second: Turn, index: int) -> Quad:
    """Take four turns: ABBA where `index` is even, BAAB where it is odd."""
    order = "BAAB" if index % 2 else "ABBA"
    turns = {"A": first, "B": second}
    return Quad(order=order, blocks=tuple(turns[letter]() for letter in order))


def duet(
    first: Turn,
    second: Turn,
    *,
    clear: Callable[[Duet], bool],
    budget_s: float,
    progress: ShowCount | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Duet:
    """Time two warm arms in turns, ABBA, BAAB, ABBA and so on, until `clear`; see `sample`."""
    with resting_collector():
        quads = sample(
            lambda index: quad(first, second, index),
            clear=lambda quads: clear(Duet(tuple(quads))),
            budget_s=budget_s,
            progress=progress,
            now=now,
        )
    return Duet(tuple(quads))


def starting_order(index: int) -> str:
    """Return which side of restart `index` is started first: "AB" or "BA".

    To start second, or to go first, may be an advantage that no number of samples removes; so
    both alternate with `index`, in all four ways (see `take_turns`).
    """
    return "BA" if index % 2 else "AB"


def take_turns(first: Turn, second: Turn, *, index: int, quads: Callable[[Block], int]) -> Duet:
    """Let two warm processes of restart `index` take turns; return their duet, A for `first`."""
    # A block each to settle: they warmed up side by side, or one after the other.
    settling = {"A": first, "B": second}
    block, _ = (settling[letter]() for letter in starting_order(index))
    return Duet(tuple(quad(first, second, each + index // 2) for each in range(quads(block))))


def pooled_ratio(ratios: Sequence[float], *, confidence: float) -> Estimate:
    """Return how many times longer B takes than A, from one ratio a restart (`Duet.point`).

    Raises:
        SampleError: there are too few, or one is not finite and positive.
    """
    return paired_ratio(
        ratios, [1.0] * len(ratios), confidence=at_each_look(confidence, len(ratios))
    )
