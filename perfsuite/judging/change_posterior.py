"""Where along a row of commits a figure changes, as probabilities: pure functions of ratios.

Commit 0 is the good end, commit n the bad one. A figure keeps its level from one change to the
next. Only levels of commits that were compared are seen, so that a change is known to lie in a gap
between two of them: each set of gaps is an explanation, a linear model with normal noise, and its
evidence is in closed form. So the posterior is exact, as in Fearnhead, Statistics and Computing 16,
2006, where the sum over explanations is a recursion; here there are few enough to be listed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from perfsuite.judging.estimates import Floats, hodges_lehmann

MOST_CHANGES = 3
"""That are told apart in one search; explanations are listed, so that they must stay few."""
_SCATTER_OF_COMMITS = 0.25
"""Of the margin: how far commits may scatter that change nothing, as by where code comes to lie."""
_ENOUGH_DEGREES = 6
_EXACT = 1e-6
"""What repeats exactly, as bytes do, is taken to scatter by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitCompared:
    """A commit beside both ends: how many times its figure is another's, a ratio a round.

    Attributes:
        commit: its index, from 1; that of the bad end where only the ends were compared.
        over_good: this commit's figure over the good end's.
        bad_over: the bad end's figure over this commit's; empty where this is the bad end.
    """

    commit: int
    over_good: tuple[float, ...]
    bad_over: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePosterior:
    """What comparisons say of changes.

    Attributes:
        commits: those that were compared, in order; a gap ends at each.
        levels: logarithm of each one's figure over the good end's, and `errors` its standard error.
        gaps: of each explanation those in which there is a change, -1 where it has fewer.
        share: the probability of each explanation.
        jumps: the logarithm of each change, by explanation, and `jump_errors` its standard error.
        within: of a change in a gap, the probability that it is at each commit (gaps, commits).
    """

    commits: tuple[int, ...]
    levels: Floats
    errors: Floats
    gaps: NDArray[np.int64]
    share: Floats
    jumps: Floats
    jump_errors: Floats
    within: Floats

    def at_commits(self) -> Floats:
        """Return the probability of a change at each commit from 1 to n."""
        return np.asarray(self._by_gap(self.share[:, None]) @ self.within)

    def beyond(self, margin: float) -> Floats:
        """Return the probability that there are 0, 1, ... changes of more than a margin."""
        limit = math.log1p(margin)
        inside = ndtr((limit - self.jumps) / self.jump_errors)
        inside -= ndtr((-limit - self.jumps) / self.jump_errors)
        chance = np.where(self.gaps < 0, 0.0, 1 - inside)
        numbers = np.zeros((len(chance), MOST_CHANGES + 1))
        numbers[:, 0] = 1.0
        for each in chance.T:
            numbers[:, 1:] = numbers[:, 1:] * (1 - each)[:, None] + numbers[:, :-1] * each[:, None]
            numbers[:, 0] *= 1 - each
        return np.asarray(self.share @ numbers)

    def spread(self) -> Floats:
        """Return the standard deviation of the level of each commit from 1 to n, as now known."""
        passed = np.cumsum(self.within, axis=1)
        jumps = np.zeros((len(self.gaps), len(self.commits)))
        rows = np.arange(len(self.gaps))
        for gap, jump in zip(self.gaps.T, self.jumps.T, strict=True):
            jumps[rows, gap] += np.where(gap < 0, 0.0, jump)
        mean = jumps @ passed
        among = self.share @ mean**2 - (self.share @ mean) ** 2
        return np.sqrt(np.maximum(among + self.share @ (jumps**2 @ (passed * (1 - passed))), 0.0))

    def places(self, number: int) -> tuple[Floats, Floats, Floats]:
        """Return of each of so many changes, if they are so many, its probabilities by commit.

        And the mean of its logarithm, and the standard deviation.
        """
        chosen = np.sum(self.gaps >= 0, axis=1) == number
        share = self.share[chosen] / np.sum(self.share[chosen])
        gaps, jumps = self.gaps[chosen][:, :number], self.jumps[chosen][:, :number]
        where = np.array([share @ self.within[gap] for gap in gaps.T])
        mean = share @ jumps
        variance = share @ (jumps**2 + self.jump_errors[chosen][:, :number] ** 2) - mean**2
        return where, mean, np.sqrt(variance)

    def _by_gap(self, values: Floats) -> Floats:
        """Return sums over explanations of a value for each of their changes, by gap."""
        there = self.gaps >= 0
        spread = np.broadcast_to(values, self.gaps.shape)
        sums = np.bincount(self.gaps[there], spread[there], minlength=len(self.commits))
        return np.asarray(sums, dtype=np.float64)


def posterior(
    compared: Sequence[CommitCompared], prior: Sequence[float], margin: float
) -> ChangePosterior:
    """Return what comparisons say; `prior` has the expected number of changes at each commit.

    The bad end must have been compared with the good one.
    """
    weights = np.asarray(prior, dtype=np.float64)
    commits, information, known = _normal_equations(compared)
    covariance = np.linalg.inv(information)
    levels = covariance @ known
    n = len(commits)
    scatter = _SCATTER_OF_COMMITS * math.log1p(margin)
    precision = np.linalg.inv(covariance + scatter**2 * (np.eye(n) + 1))
    # A change in a gap moves the levels of its end, and of all commits after it.
    after = np.tril(np.ones((n, n)))
    curvature, slope = after.T @ precision @ after, after.T @ precision @ levels
    size = max(2 * math.log1p(margin), float(np.max(np.abs(levels))))
    edges = (0, *commits)
    mass = np.add.reduceat(weights, edges[:-1])
    within = np.zeros((n, len(weights)))
    for gap in range(n):
        inside = slice(edges[gap], edges[gap + 1])
        within[gap, inside] = weights[inside] / max(mass[gap], 1e-300)
    gaps = _explanations(n)
    log_share, jumps = [np.zeros(1)], [np.zeros((1, MOST_CHANGES))]
    errors = [np.ones((1, MOST_CHANGES))]
    for number in range(1, min(MOST_CHANGES, n) + 1):
        chosen = gaps[np.sum(gaps >= 0, axis=1) == number][:, :number]
        inner = curvature[chosen[:, :, None], chosen[:, None, :]] + np.eye(number) / size**2
        inverse = np.linalg.inv(inner)
        mean = np.einsum("sij,sj->si", inverse, slope[chosen])
        with np.errstate(divide="ignore"):
            log_prior = np.sum(np.log(mass[chosen]), axis=1)
        log_share.append(
            log_prior
            + np.sum(mean * slope[chosen], axis=1) / 2
            - np.linalg.slogdet(inner)[1] / 2
            - number * math.log(size)
        )
        fill = ((0, 0), (0, MOST_CHANGES - number))
        jumps.append(np.pad(mean, fill))
        deviations = np.sqrt(np.einsum("sii->si", inverse))
        errors.append(np.pad(deviations, fill, constant_values=1.0))
    logs = np.concatenate(log_share)
    share = np.exp(logs - np.max(logs))
    return ChangePosterior(
        commits=commits,
        levels=levels,
        errors=np.sqrt(np.diag(covariance)),
        gaps=gaps,
        share=share / np.sum(share),
        jumps=np.concatenate(jumps),
        jump_errors=np.concatenate(errors),
        within=within,
    )


@cache
def _explanations(gaps: int) -> NDArray[np.int64]:
    """Return all sets of up to MOST_CHANGES gaps, smaller ones first, -1 where one has fewer."""
    sets = [
        (*each, *(-1,) * (MOST_CHANGES - number))
        for number in range(min(MOST_CHANGES, gaps) + 1)
        for each in combinations(range(gaps), number)
    ]
    return np.array(sets, dtype=np.int64)


def _normal_equations(compared: Sequence[CommitCompared]) -> tuple[tuple[int, ...], Floats, Floats]:
    """Return the commits that were compared, and least squares' equations of their log levels."""
    commits = tuple(sorted({each.commit for each in compared}))
    index = {commit: at for at, commit in enumerate(commits)}
    bad = len(commits) - 1
    sums = [_squares(each.over_good, each.bad_over) for each in compared]
    pooled = sum(total for total, _ in sums) / max(sum(degrees for _, degrees in sums), 1)
    information, known = np.zeros((len(commits), len(commits))), np.zeros(len(commits))
    for each, (total, degrees) in zip(compared, sums, strict=True):
        # A comparison that was noisier than the others counts for less.
        variance = max(pooled, total / degrees if degrees >= _ENOUGH_DEGREES else 0.0, _EXACT**2)
        at = index[each.commit]
        for ratios, signs in ((each.over_good, {at: 1.0}), (each.bad_over, {at: -1.0, bad: 1.0})):
            if not ratios:
                continue
            weight = len(ratios) / variance
            for row, sign in signs.items():
                known[row] += weight * sign * _centre(ratios)
                for column, other in signs.items():
                    information[row, column] += weight * sign * other
    return commits, information, known


@lru_cache(maxsize=1024)
def _centre(ratios: tuple[float, ...]) -> float:
    return math.log(hodges_lehmann(ratios, [1.0] * len(ratios)))


@lru_cache(maxsize=1024)
def _squares(*groups: tuple[float, ...]) -> tuple[float, int]:
    """Return the squared deviations of log ratios from their groups' means, and their degrees."""
    logs = [np.log(group) for group in groups if group]
    total = sum(float(np.sum((group - np.mean(group)) ** 2)) for group in logs)
    return total, sum(len(group) - 1 for group in logs)
