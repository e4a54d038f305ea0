"""Convergence: healthy pairs pass, and planted faults fail for the reason they should."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from fakes import FakeTime
from sabotage import environments as env
from torch import Tensor

from perfsuite.devices.precision import Precision
from perfsuite.judging.estimates import SampleError
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.thresholds import ConvergenceLimits
from perfsuite.measuring.convergence import (
    SeedPair,
    TrainingRun,
    judge,
    judge_twice,
    non_finite,
    train,
    train_pairs,
)
from perfsuite.training.data import Digits, load_digits
from perfsuite.training.model import build_model
from perfsuite.training.step import TrainStep, applied_steps

ASKED = ConvergenceLimits(margin=0.03, max_skipped=0.02, min_scale=2.0**10, max_scale=2.0**24)
STEPS = 40
# Without the tutorial's depth and dropout it learns in a second what takes that a minute.
SMALL = env.small_workload()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits("mnist5k", CPU)


def outcomes(verdicts: tuple[Verdict, ...]) -> dict[str, Outcome]:
    return {verdict.gate: verdict.outcome for verdict in verdicts}


def pairs_of(candidate: Precision, steps: int = STEPS) -> tuple[SeedPair, ...]:
    return train_pairs(
        lambda precision, seed: SMALL.arm(precision, CPU, seed),
        Precision.fp32,
        candidate,
        seeds=range(4),
        steps=steps,
        clock=FakeTime().clock(),
    )


def run(losses: list[float], **changes: object) -> TrainingRun:
    healthy = TrainingRun(
        losses=tuple(losses), elapsed_s=1.0, skipped_steps=0, scales=(65536.0,), non_finite=()
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]  # fields by name


def pair(candidate: TrainingRun, seed: int = 0) -> SeedPair:
    reference = run([2.0, 1.0 + seed / 100])
    control = run([2.0, 1.0001 + seed / 100 + 0.0001 * (-1) ** seed])
    return SeedPair(seed=seed, reference=reference, candidate=candidate, control=control)


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_healthy_mixed_precision_passes_every_gate(precision: Precision) -> None:
    found = outcomes(judge(pairs_of(precision), ASKED))
    scale = {"final_scale": Outcome.PASS} if precision is Precision.fp16 else {}
    assert (
        found
        == {
            "mean_loss": Outcome.PASS,
            "finite": Outcome.PASS,
            "skipped_steps": Outcome.PASS,
        }
        | scale
    )


def test_fp32_against_itself_is_equal_to_the_bit() -> None:
    for each in pairs_of(Precision.fp32, steps=5):
        assert each.candidate.losses == each.reference.losses


def test_a_doubled_step_fails_though_it_learns_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    once = TrainStep.__call__

    def twice(step: TrainStep, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = once(step, batch)
        if step.precision is Precision.bf16:
            step.optimizer.step()
        return loss

    monkeypatch.setattr(TrainStep, "__call__", twice)
    pairs = pairs_of(Precision.bf16)
    assert pairs[0].candidate.mean_loss < pairs[0].reference.mean_loss
    assert pairs[0].candidate.skipped_steps == -STEPS
    found = outcomes(judge(pairs, ASKED))
    assert found["mean_loss"] is Outcome.FAIL
    assert found["skipped_steps"] is Outcome.FAIL


def test_a_scale_that_overflows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TrainStep.__init__

    def overflowing(step: TrainStep, *args: object, **kwargs: object) -> None:
        original(step, *args, **kwargs)  # type: ignore[arg-type]  # handed through
        step.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**40, enabled=step.precision is Precision.fp16
        )

    monkeypatch.setattr(TrainStep, "__init__", overflowing)
    found = outcomes(judge(pairs_of(Precision.fp16), ASKED))
    assert found["skipped_steps"] is Outcome.FAIL


def test_a_nan_batch_is_seen_in_the_buffers_it_poisons(digits: Digits) -> None:
    poisoned = digits.images[:16].clone()
    poisoned[0] = math.nan
    arm = SMALL.arm(Precision.fp16, CPU, seed=0)
    healthy = (digits.images[16:32], digits.labels[16:32])
    left = train(arm, [(poisoned, digits.labels[:16]), healthy], FakeTime().clock())
    # The scaler skipped the step, so the parameters are whole; running_mean is not.
    assert left.scales == (2.0**16, 2.0**15, 2.0**15)
    assert left.skipped_steps is not None
    assert left.skipped_steps >= 1
    assert any("running_mean" in name for name in left.non_finite)
    assert not any("weight" in name for name in left.non_finite)
    assert outcomes(judge([pair(left), pair(left, 1)], ASKED))["finite"] is Outcome.FAIL


def test_losses_that_are_not_finite_fail_the_mean_loss_too() -> None:
    lost = run([2.0, math.nan], non_finite=("loss of step 1",))
    found = outcomes(judge([pair(lost), pair(lost, 1)], ASKED))
    assert found["mean_loss"] is Outcome.FAIL
    assert found["finite"] is Outcome.FAIL


def test_the_control_differs_from_the_reference_in_rounding_only() -> None:
    for each in pairs_of(Precision.fp32, steps=5):
        assert each.control.losses != each.reference.losses
        assert each.control.losses == pytest.approx(each.reference.losses, rel=1e-3)


def noisy(pairs: Sequence[SeedPair]) -> tuple[SeedPair, ...]:
    """Let the reference differ from itself by a tenth, to and fro."""
    return tuple(replace(each, control=run([2.0 + 0.3 * (-1) ** each.seed, 1.0])) for each in pairs)


@pytest.mark.parametrize("last", [1.0, 1.5], ids=["equal", "worse"])
def test_where_the_reference_is_not_equal_to_itself_nothing_is_judged(last: float) -> None:
    pairs = noisy([pair(run([2.0, last + seed / 100]), seed) for seed in range(4)])
    verdict = judge(pairs, ASKED)[0]
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the reference against itself, perturbed by 1e-06, is 0.99" in verdict.reason


def test_a_candidate_that_is_not_finite_fails_whatever_the_control_does() -> None:
    lost = run([2.0, math.nan], non_finite=("loss of step 1",))
    pairs = noisy([pair(lost, seed) for seed in range(4)])
    assert outcomes(judge(pairs, ASKED))["mean_loss"] is Outcome.FAIL


def trained(*last: float) -> tuple[Callable[[Sequence[int]], tuple[SeedPair, ...]], list[int]]:
    """Return a training of which each round of four seeds ends at another loss, and its seeds."""
    asked: list[int] = []
    rounds = iter(last)

    def train(seeds: Sequence[int]) -> tuple[SeedPair, ...]:
        asked.extend(seeds)
        end = next(rounds)
        return tuple(pair(run([2.0, end + seed / 100]), seed) for seed in seeds)

    return train, asked


def test_what_is_green_is_not_run_twice() -> None:
    train, asked = trained(1.0)
    pairs, verdicts = judge_twice(train, 4, ASKED)
    assert asked == [0, 1, 2, 3]
    assert len(pairs) == 4
    assert set(outcomes(verdicts).values()) == {Outcome.PASS}


@pytest.mark.parametrize(("then", "outcome"), [(1.0, Outcome.PASS), (1.5, Outcome.FAIL)])
def test_what_is_red_is_run_once_more_with_fresh_seeds(then: float, outcome: Outcome) -> None:
    train, asked = trained(1.5, then)
    pairs, verdicts = judge_twice(train, 4, ASKED)
    assert asked == list(range(8))
    assert [each.seed for each in pairs] == asked
    assert verdicts[0].outcome is outcome
    assert "FAIL 1.16" in verdicts[0].reason
    assert "before, these are fresh seeds" in verdicts[0].reason


def test_no_second_try_excuses_a_nan() -> None:
    def train(seeds: Sequence[int]) -> tuple[SeedPair, ...]:
        broken = () if seeds[0] else ("0.weight",)
        return tuple(pair(run([2.0, 1.0], non_finite=broken), seed) for seed in seeds)

    _, verdicts = judge_twice(train, 4, ASKED)
    assert outcomes(verdicts)["finite"] is Outcome.FAIL


def test_one_pair_is_not_judged_to_be_equal() -> None:
    with pytest.raises(SampleError, match="1 values, need at least 2"):
        judge([pair(run([2.0, 1.0]))], ASKED)


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"skipped_steps": 2}, "skipped_steps"),
        ({"skipped_steps": -2}, "skipped_steps"),
        ({"scales": (65536.0, 1.0)}, "final_scale"),
        ({"scales": (2.0**30,)}, "final_scale"),
    ],
)
def test_an_unhealthy_run_among_healthy_ones_fails(changes: dict[str, object], gate: str) -> None:
    good = [pair(run([2.0, 1.0 + seed / 100]), seed) for seed in range(4)]
    assert set(outcomes(judge(good, ASKED)).values()) == {Outcome.PASS}
    bad = [*good, pair(run([2.0, 1.04], **changes), 4)]
    failed = {v.gate for v in judge(bad, ASKED) if v.outcome is Outcome.FAIL}
    assert failed == {gate}


def test_steps_skipped_in_one_run_do_not_make_up_for_those_doubled_in_another() -> None:
    mixed = [pair(run([2.0, 1.0], skipped_steps=n)) for n in (3, -3)]
    assert outcomes(judge(mixed, ASKED))["skipped_steps"] is Outcome.FAIL


def test_an_optimizer_without_a_count_is_not_known_to_be_healthy() -> None:
    unknown = [pair(run([2.0, 1.0], skipped_steps=None)), pair(run([2.0, 1.01]), 1)]
    assert outcomes(judge(unknown, ASKED))["skipped_steps"] is Outcome.INCONCLUSIVE


def test_training_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no batches"):
        train(SMALL.arm(Precision.fp32, CPU), [], FakeTime().clock())


def test_a_plain_sgd_keeps_no_count() -> None:
    model = build_model([[1, 2, 3, 1, 1]])
    assert applied_steps(torch.optim.SGD(model.parameters(), lr=0.1)) is None


def test_non_finite_names_parameters_and_buffers() -> None:
    model = build_model([[1, 2, 3, 1, 1]])
    assert non_finite([model]) == ()
    with torch.no_grad():
        dict(model.named_parameters())["0.weight"][0] = math.inf
        dict(model.named_buffers())["1.running_var"][0] = math.nan
    assert non_finite([model]) == ("0.weight", "1.running_var")


def test_ranks_that_train_together_lose_what_they_lose_on_average() -> None:
    def of(*losses: float, skipped: int, bad: tuple[str, ...] = ()) -> TrainingRun:
        return TrainingRun(
            losses=losses, elapsed_s=sum(losses), skipped_steps=skipped, scales=(), non_finite=bad
        )

    both = TrainingRun.of_ranks([of(3.0, 1.0, skipped=0), of(5.0, 2.0, skipped=1, bad=("bias",))])
    expected = of(4.0, 1.5, skipped=1, bad=("bias (rank 1)",))
    assert both == replace(expected, elapsed_s=7.0)  # of the slower one
