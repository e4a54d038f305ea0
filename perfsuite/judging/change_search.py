"""Which commit to compare next, and what is known by then: a noisy binary search, without a clock.

A commit is compared where its level is least known: for one change of known size that is the median
of the posterior, as in Burnashev and Zigangirov (Problemy Peredachi Informatsii 10, 1974) and in
Ben-Or and Hassidim (FOCS 2008); answers that are wrong at a rate that is unknown beforehand, and
may differ from one commit to the next, are those of Karp and Kleinberg (SODA 2007). Several changes
need no rule of their own: between two levels lies a third one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from perfsuite.judging.change_posterior import ChangePosterior, CommitCompared, posterior
from perfsuite.judging.estimates import Estimate, Floats

CONFIDENCE = 0.99
"""A single commit is named from so much on, and no change is said to be there."""
_SURE_OF_NUMBER = 0.95
"""That there is no further change beside those that are known to the commit."""
LOOKS_INSIDE = 11
"""Commits, evenly spaced, that are compared where both ends are alike, before no change is said."""
FIRST_ROUNDS = 9
"""Of the ends: how far rounds scatter is learnt from them."""
LOOKS = (4, 6, 9, 13, 19, 27)
"""After how many rounds it is asked whether a commit's level is known."""
_KNOWN = 1 / 3
"""Of the margin: a level is known whose standard deviation is no more."""
_SEEN = 1 / 2
"""Of the margin: a level is seen, whatever its neighbours are, whose standard error is no more."""
_NOTHING_TO_LEARN = 0.02
"""Of the margin: no comparison would tell more of levels whose standard deviations are no more."""
_NOT_THERE = 1e-4


def most_comparisons(commits: int) -> int:
    """Return how many comparisons a search among so many commits may take."""
    return max(3 * math.ceil(math.log2(max(commits, 2))), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundChange:
    """A change: at `first` if that is `last`, or else at one of the commits from first to last.

    Attributes:
        ratio: the figure after over the figure before, with its interval.
        probability: that there is a change at these commits.
    """

    first: int
    last: int
    ratio: Estimate
    probability: float

    @property
    def single(self) -> bool:
        """Whether it is known at which commit."""
        return self.first == self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAnswer:
    """What a search found.

    Attributes:
        changes: in order; none where none is as large as the margin.
        probability: that there are so many.
        decided: whether that is sure, and each is known to the commit.
    """

    changes: tuple[FoundChange, ...]
    probability: float
    decided: bool


class ChangeSearch:
    """A search for the commits, from 1 to n, at which a figure changes by more than a margin."""

    def __init__(self, prior: Sequence[float], *, margin: float) -> None:
        """Begin; `prior` has a weight for each commit, 0 where nothing can have changed."""
        self.n = len(prior)
        total = sum(prior)
        self._prior = [weight / total for weight in prior] if total else list(prior)
        self._margin = margin
        self._untestable: set[int] = set()
        self.compared: list[CommitCompared] = []
        self._posterior: ChangePosterior | None = None

    @property
    def now(self) -> ChangePosterior:
        """What is known so far; there must have been a comparison."""
        if self._posterior is None:
            self._posterior = posterior(self.compared, self._prior, self._margin)
        return self._posterior

    def next(self) -> int | None:
        """Return the commit to be compared with both ends, n for the ends alone; None if done."""
        if not self.compared:
            return self.n
        if len(self.compared) >= most_comparisons(self.n):
            return None
        answer = self.answer()
        if not answer.changes and (inside := self._inside()) is not None:
            return inside
        if answer.decided:
            return None
        spread = self.now.spread()
        for at in np.argsort(-spread, kind="stable").tolist():
            if at + 1 not in self._untestable:
                return at + 1 if spread[at] > _NOTHING_TO_LEARN * self._limit else None
        return None

    def skip(self, commit: int) -> None:
        """Note that a commit cannot be compared; it may hold a change all the same."""
        self._untestable.add(commit)

    def among(self, prior: Sequence[float], places: Sequence[int]) -> "ChangeSearch":
        """Return this search among more commits; `places` has where each of its own lies there."""
        found = ChangeSearch(prior, margin=self._margin)
        for commit in self._untestable:
            found.skip(places[commit - 1])
        for each in self.compared:
            found.tell(replace(each, commit=places[each.commit - 1]))
        return found

    def unclear(self, comparison: CommitCompared) -> bool:
        """Tell whether a comparison under way should take more rounds."""
        rounds = len(comparison.over_good)
        if not self.compared:
            return rounds < FIRST_ROUNDS
        if rounds >= LOOKS[-1]:
            return False
        # Compared again, since it was not clear: as many rounds as it had, or else it stays so.
        before = [each for each in self.compared if each.commit == comparison.commit]
        if rounds not in LOOKS or rounds < sum(len(each.over_good) for each in before):
            return True
        now = posterior([*self.compared, comparison], self._prior, self._margin)
        # Where nothing has changed so far, that is expected here, too: it has to be seen.
        alike = int(np.argmax(now.beyond(self._margin))) == 0
        error = float(now.errors[now.commits.index(comparison.commit)])
        known = float(now.spread()[comparison.commit - 1]) <= _KNOWN * self._limit
        return not known or (alike and error > _SEEN * self._limit)

    def tell(self, comparison: CommitCompared) -> None:
        """Take the result of a comparison."""
        self.compared.append(comparison)
        self._posterior = None

    def answer(self) -> SearchAnswer:
        """Return what is known by now."""
        numbers = self.now.beyond(self._margin)
        number = int(np.argmax(numbers))
        probability = float(numbers[number])
        if number == 0:
            return SearchAnswer(
                changes=(), probability=probability, decided=probability >= CONFIDENCE
            )
        where, means, errors = self.now.places(number)
        by_commit = self.now.at_commits()
        changes = tuple(
            self._found(each, float(mean), float(error), by_commit)
            for each, mean, error in zip(where, means, errors, strict=True)
        )
        decided = probability >= _SURE_OF_NUMBER and all(each.single for each in changes)
        return SearchAnswer(changes=changes, probability=probability, decided=decided)

    def levels(self) -> dict[int, Estimate]:
        """Return the figure of each commit that was compared over the good end's, in order."""
        now = self.now
        return {
            commit: self._estimate(float(level), float(error))
            for commit, level, error in zip(now.commits, now.levels, now.errors, strict=True)
        }

    @property
    def _limit(self) -> float:
        return math.log1p(self._margin)

    def _inside(self) -> int | None:
        """Return the next of the commits that are looked at where both ends are alike."""
        looks = min(LOOKS_INSIDE, self.n - 1)
        spaced = [round((1 + each) * self.n / (looks + 1)) for each in _middle_first(looks)]
        known = {each.commit for each in self.compared} | self._untestable
        return next((commit for commit in spaced if commit not in known), None)

    def _found(self, where: Floats, mean: float, error: float, by_commit: Floats) -> FoundChange:
        """Return a change as the narrowest range, around where it is likeliest, that holds it."""
        first = last = int(np.argmax(where))

        def short() -> bool:
            inside = slice(first, last + 1)
            return bool(min(where[inside].sum(), by_commit[inside].sum()) < CONFIDENCE)

        there = np.flatnonzero(where > _NOT_THERE)
        while short() and (first > there[0] or last < there[-1]):
            before = where[first - 1] if first > there[0] else -1.0
            after = where[last + 1] if last < there[-1] else -1.0
            first, last = (first - 1, last) if before > after else (first, last + 1)
        return FoundChange(
            first=first + 1,
            last=last + 1,
            ratio=self._estimate(mean, error),
            probability=min(float(by_commit[first : last + 1].sum()), 1.0),
        )

    def _estimate(self, mean: float, error: float) -> Estimate:
        """Return a ratio from its logarithm and the standard error of that."""
        half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
        rounds = sum(len(each.over_good) for each in self.compared)
        return Estimate.from_logs(
            mean, mean - half, mean + half, confidence=CONFIDENCE, n=rounds, scatter=error
        )


def _middle_first(number: int) -> list[int]:
    """Return 0 to number - 1 in an order in which each halves the widest stretch left."""
    order: list[int] = []
    stretches = [(0, number)]
    while stretches:
        first, last = stretches.pop(0)
        if first < last:
            middle = (first + last) // 2
            order.append(middle)
            stretches += [(first, middle), (middle + 1, last)]
    return order
