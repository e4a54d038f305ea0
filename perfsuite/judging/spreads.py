"""How a figure spreads between runs: learnt from few runs of it, and from many of its like."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from scipy.special import betaln

from perfsuite.judging.estimates import positive

Key = TypeVar("Key")

MAD_TO_DEVIATION = 1.4826  # of a normal deviate
MAD_EFFICIENCY = 0.37
"""Of the median absolute deviation: 100 nights tell by it as much as 37 would by their variance
(Rousseeuw and Croux, J. Am. Stat. Assoc. 88, 1993)."""
STEP_EFFICIENCY = 0.30
"""Of the median absolute step from one night to the next: less, since neighbours share a night."""
_LEAST_ALIKE = 3
"""Of so many figures at least can be told whether they spread alike."""
_DEGREES = tuple(4.0**n for n in range(6))  # that the common spread may be worth; at most 1,024


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation of logarithms, and the degrees of freedom that it rests on.

    Infinite degrees of freedom: it is taken for known.
    """

    deviation: float
    degrees: float


def observed_spread(runs: Sequence[float], *nights: Sequence[float]) -> Spread:
    """Return how a figure spreads: by promoted runs, and by later nights of unchanged code.

    Nights are in their order, in series of one PyTorch each, and tell by their steps from one to
    the next (von Neumann et al., Ann. Math. Stat. 12, 1941): what differs between days counts, and
    their level does not. What changed for good, an improvement that nobody promoted or other
    software, is no spread. Of the steps it is the median absolute one, since now and then a night
    is far off. One run by itself has no degree of freedom, and neither has one night.

    Raises:
        SampleError: a value is not finite and positive.
    """
    logs = [math.log(run) for run in positive("runs", runs)]
    squares, degrees = 0.0, len(logs) - 1.0
    if len(logs) > 1:
        squares = statistics.variance(logs) * degrees
    past = [list(map(math.log, positive("nights", each, least=0))) for each in nights]
    if steps := [abs(now - then) for series in past for then, now in pairwise(series)]:
        theirs = STEP_EFFICIENCY * len(steps)
        squares += (MAD_TO_DEVIATION * statistics.median(steps)) ** 2 / 2 * theirs
        degrees += theirs
    return Spread(math.sqrt(squares / degrees) if degrees else 0.0, degrees)


def pooled_spreads(spreads: Mapping[Key, Spread]) -> dict[Key, Spread]:
    """Return the spreads of a machine's figures, each drawn towards what they have in common.

    Where they agree, a figure's spread rests on all of them; where they do not, on its own runs:
    how far they do is told by how much their variances differ beyond chance (empirical Bayes:
    Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004, sections 3 and 4). A figure that does not
    scatter, as one that is counted, teaches nothing and stays as it is.
    """
    scattering = {
        key: each for key, each in spreads.items() if each.deviation > 0 and each.degrees > 0
    }
    if len(scattering) < _LEAST_ALIKE:
        return dict(spreads)
    prior = _common(list(scattering.values()))
    return {
        key: _drawn(each, prior) if key in scattering else each for key, each in spreads.items()
    }


def _common(spreads: Sequence[Spread]) -> Spread:
    """Return the spread that figures have in common; its degrees tell how far they agree.

    Each variance over the common one has an F distribution; the likeliest is taken. (Smyth matches
    moments of logarithms, which one variance near zero carries away.)
    """
    # Late: it takes a third of a second to import, and most sessions compare with nothing.
    from scipy.optimize import minimize_scalar

    degrees = np.array([each.degrees for each in spreads])
    logs = np.log([each.deviation for each in spreads]) * 2

    def unlikeliness(log_variance: float, prior: float) -> float:
        ratio = degrees / prior * np.exp(logs - log_variance)
        density = degrees / 2 * np.log(ratio) - (degrees + prior) / 2 * np.log1p(ratio)
        return float(np.sum(betaln(degrees / 2, prior / 2) - density))

    bounds = (float(logs.min()), float(logs.max()))
    found = [
        (fit.fun, Spread(math.exp(fit.x / 2), prior))
        for prior in _DEGREES
        for fit in [minimize_scalar(unlikeliness, bounds=bounds, args=(prior,))]
    ]
    return min(found, key=lambda each: each[0])[1]


def _drawn(own: Spread, prior: Spread) -> Spread:
    degrees = own.degrees + prior.degrees
    squares = own.degrees * own.deviation**2 + prior.degrees * prior.deviation**2
    return Spread(math.sqrt(squares / degrees), degrees)


def or_assumed(spread: Spread, assumed: float) -> Spread:
    """Return a spread, or the larger of it and an assumed one where it rests on too little."""
    if spread.degrees >= 2:
        return spread
    return Spread(max(spread.deviation, assumed), math.inf)
