"""The tutorial's claims: yes and no where an interval is clear, and a verdict that can be red."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from perfsuite.judging.claims import judge_claims, right_ratio
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.thresholds import (
    MemoryLimits,
    SpeedupLimits,
    Thresholds,
    load_thresholds,
)

TEN = [2.0, 2.1, 1.9, 2.05, 1.95, 2.02, 1.98, 2.01, 1.99, 2.0]
LOSS = [1.2, 0.35, 0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.06]
RIGHT = [*[True] * 480, *[False] * 20]
OPEN = load_thresholds(Path("no such file"), "")
STRICT = msgspec.structs.replace(
    OPEN,
    amp_speedup=SpeedupLimits(min={"bf16-vs-fp32": 1.5}),
    memory=MemoryLimits(max_activation_ratio=0.75, max_peak_ratio=0.9),
)


def scaled(values: Sequence[float], *factors: float) -> list[float]:
    """Return values times the factors, which take turns."""
    return [value * factors[at % len(factors)] for at, value in enumerate(values)]


def claims(
    *,
    epoch_s: Sequence[float] = TEN,
    loss: Sequence[float] = LOSS,
    kept: int = 60,
    peaks: Sequence[int] = (),
    right: Sequence[bool] = RIGHT,
    asked: Thresholds = OPEN,
) -> list[tuple[Verdict, str]]:
    return judge_claims(
        "bf16",
        "fp32",
        epoch_s=(TEN[: len(epoch_s)], epoch_s),
        loss=(LOSS[: len(loss)], loss),
        right=(RIGHT, right),
        kept_bytes=[100, kept],
        peak_bytes=peaks,
        asked=asked,
    )


@pytest.mark.parametrize(
    ("factors", "answer", "outcome"),
    [
        ((0.5,), "Yes", Outcome.PASS),
        ((0.8,), "Yes", Outcome.FAIL),  # faster, and not by what is required
        ((2.0,), "No", Outcome.FAIL),
        ((0.5, 1.8), "It cannot be told", Outcome.INCONCLUSIVE),
    ],
)
def test_it_is_faster_where_all_of_the_interval_is(
    factors: tuple[float, ...], answer: str, outcome: Outcome
) -> None:
    (verdict, sentence), *_ = claims(epoch_s=scaled(TEN, *factors), asked=STRICT)
    assert verdict.outcome is outcome
    assert sentence.startswith(f"Is bf16 faster than fp32 on this machine? {answer}: {outcome}")
    (verdict, again), *_ = claims(epoch_s=scaled(TEN, *factors))
    assert verdict.outcome is Outcome.NOT_GATED  # the answer needs no threshold
    assert again.partition("?")[2].startswith(f" {answer}: NOT GATED")


@pytest.mark.parametrize(
    ("factors", "answer", "outcome"),
    [
        ((1.001, 0.999), "Yes", Outcome.PASS),
        ((1.2,), "No", Outcome.FAIL),
        ((0.8,), "No", Outcome.FAIL),  # a step that is taken twice learns faster
        ((1.2, 0.8), "It cannot be told", Outcome.NOT_GATED),
    ],
)
def test_it_loses_alike_where_all_of_the_interval_does(
    factors: tuple[float, ...], answer: str, outcome: Outcome
) -> None:
    _, (verdict, sentence), *_ = claims(loss=scaled(LOSS, *factors))
    assert verdict.outcome is outcome
    assert sentence.startswith(f"Is its loss that of fp32 on this machine? {answer}: {outcome}")
    assert ("test_amp_convergence" in sentence) is (outcome is Outcome.NOT_GATED)


@pytest.mark.parametrize(
    ("kept", "peaks", "answer", "gate", "outcome"),
    [
        (60, (), "Yes", "activation_ratio", Outcome.PASS),
        (80, (), "Yes", "activation_ratio", Outcome.FAIL),
        (100, (), "No", "activation_ratio", Outcome.FAIL),
        (60, (100, 85), "Yes", "peak_ratio", Outcome.PASS),
        (60, (100, 110), "No", "peak_ratio", Outcome.FAIL),
    ],
)
def test_it_takes_less_memory_by_the_peak_where_there_is_one(
    kept: int, peaks: Sequence[int], answer: str, gate: str, outcome: Outcome
) -> None:
    *_, (verdict, sentence) = claims(kept=kept, peaks=peaks, asked=STRICT)
    assert (verdict.gate, verdict.outcome) == (gate, outcome)
    assert sentence.startswith(f"Does it take less memory on this machine? {answer}: {outcome}")


def test_too_few_epochs_tell_nothing_and_are_not_green_where_something_is_required() -> None:
    (speed, sentence), (loss, _), *_ = claims(epoch_s=[1.0], loss=LOSS[:1], asked=STRICT)
    assert (speed.outcome, loss.outcome) == (Outcome.INCONCLUSIVE, Outcome.NOT_GATED)
    assert "It cannot be told" in sentence
    assert "too few epochs" in sentence
    (_, again), *_ = claims(epoch_s=[1.0], loss=LOSS[:1])
    assert "too few epochs" in again  # and not that no threshold is set


def test_a_loss_that_is_not_finite_is_no_likeness() -> None:
    _, (verdict, sentence), *_ = claims(loss=[float("nan"), *LOSS[1:]])
    assert verdict.outcome is Outcome.NOT_GATED  # the gate `finite` is red
    assert "It cannot be told" in sentence


@pytest.mark.parametrize(
    ("lost", "gained", "answer"),
    [
        (0, 0, "Yes"),
        (5, 5, "Yes"),
        (60, 0, "No"),
        (480, 0, "No"),
        (20, 5, "It cannot be told"),
    ],
)
def test_it_tells_what_was_held_out_where_all_of_the_interval_does(
    lost: int, gained: int, answer: str
) -> None:
    right = [not each if at < lost or at >= 500 - gained else each for at, each in enumerate(RIGHT)]
    *_, (verdict, sentence), _ = claims(right=right)
    # Trainings from another seed would differ, too, which this interval knows nothing of.
    assert (verdict.gate, verdict.outcome) == ("held_out", Outcome.NOT_GATED)
    assert sentence.partition("?")[2].startswith(f" {answer}: NOT GATED")


def test_the_interval_of_two_that_are_as_good_holds_one_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0)
    level, held, trials = 0.9, 0, 1000
    for _ in range(trials):
        hard = drawn.random(300)  # some samples are, for both
        one, other = (drawn.random(300) > 0.3 * hard for _ in range(2))
        found = right_ratio(one.tolist(), other.tolist(), confidence=level)
        held += found.low <= 1 <= found.high
    assert held / trials == pytest.approx(level, abs=0.03)
