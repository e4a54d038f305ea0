"""Levers tried in turns, on a simulated card: what helps, what does not, what cannot be pulled."""

import re
from typing import Any

import pytest
from climbs import FP32, SAMPLES, bench_on, climbed, simulated

from perfsuite.judging.ceilings import Ceilings
from perfsuite.judging.gates import Outcome
from perfsuite.measuring import climbing, profiling
from perfsuite.measuring.bench import Bench
from perfsuite.measuring.ceiling_search import ceilings_of
from perfsuite.measuring.climbing import Recipe, fitting_samples, try_levers
from perfsuite.training.arm import Arm


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return bench_on(simulated(monkeypatch, launch_s=2e-5))


def test_a_rung_that_helps_carries_the_next_and_one_that_does_not_is_taken_off(
    perf: Bench,
) -> None:
    foot, fused, unfused, doubled = climbed(
        perf,
        {
            "fused": {"fused": True},  # one launch in place of hundreds
            "unfused": {"fused": False},
            "batch x2": {"doublings": 1},
        },
    )
    assert (foot.word, fused.word, unfused.word, doubled.word) == ("", "faster", "slower", "faster")
    assert [each.against for each in (fused, unfused, doubled)] == ["foot", "fused", "fused"]
    assert doubled.samples == 2 * SAMPLES
    assert 1 < doubled.gain.value <= 2.01  # in samples, and not in steps
    assert 0 < foot.share_of_ceiling < fused.share_of_ceiling < doubled.share_of_ceiling < 1
    assert doubled.memory_bytes > foot.memory_bytes > 0
    assert foot.bound == "host"
    assert unfused.slower_by[0].startswith("kernels: ")
    outcomes = {v.gate: v.outcome for v in perf.notes.verdicts}
    assert outcomes == {
        "fused": Outcome.NOT_GATED,
        "fused losses": Outcome.PASS,
        "fused weights": Outcome.PASS,
        "unfused": Outcome.NOT_GATED,
        "unfused losses": Outcome.PASS,
        "unfused weights": Outcome.PASS,
        "batch x2": Outcome.NOT_GATED,
        "batch x2 losses": Outcome.NOT_GATED,
        "batch x2 weights": Outcome.NOT_GATED,
    }
    told, top = perf.notes.pages[-2:]
    assert "slower: 0." in told
    assert re.fullmatch(r"batch x2: \d+% of its step in products, at [\d.]+% of the ceiling", top)
    assert perf.notes.operators is not None


def test_all_rungs_are_held_against_the_ceiling_that_was_found_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = simulated(monkeypatch, launch_s=2e-5)
    truth = device.ceilings
    # Between the foot and the rung above it: measured again as soon as that is told.
    device.ceilings = Ceilings(products={"fp32": 7e7})
    perf = bench_on(device)
    ceilings_of(device)
    device.ceilings = truth
    foot, fused = climbed(perf, {"fused": {"fused": True}})
    apart = fused.share_of_ceiling / foot.share_of_ceiling
    assert apart == pytest.approx(fused.samples_per_s / foot.samples_per_s)
    assert not [each for each in perf.notes.verdicts if each.gate == "share_of_ceiling"]


@pytest.mark.parametrize(
    ("about", "against"),
    [({"climb": True, "always": "unfused"}, "unfused"), ({"climb": False}, "foot")],
    ids=["always", "advice"],
)
def test_a_lever_may_stay_though_it_is_slower_and_none_stays_for_advice(
    perf: Bench, about: dict[str, Any], against: str
) -> None:
    levers = {"unfused": {"fused": False}, "loss read": {"reads_loss": True}}
    recipe = Recipe(precision=FP32, fused=True)
    *_, read = try_levers(perf, recipe, levers, foot="foot", samples=SAMPLES, **about)
    assert read.against == against
    assert "loss read losses" not in {each.gate for each in perf.notes.verdicts}  # the same step


def test_what_cannot_be_pulled_is_left_out_and_says_why(perf: Bench) -> None:
    _, cudnn, alike = climbed(
        perf, {"cudnn.benchmark": {"cudnn_benchmark": True}, "alike": {"fused": False}}
    )
    assert str(cudnn) == "cudnn.benchmark: left out: simulated has no cuDNN"
    assert cudnn.gain is None
    assert alike.word == "no change"
    assert "no change: 1.00x [1.00, 1.00]" in str(alike)


def test_where_every_lever_is_left_out_the_step_is_timed_alone(perf: Bench) -> None:
    foot, _ = climbed(perf, {"cudnn.benchmark": {"cudnn_benchmark": True}})
    assert foot.samples_per_s == pytest.approx(SAMPLES / foot.step_s)
    assert perf.notes.times_s


@pytest.mark.parametrize(
    ("budget_s", "word"), [(1e-6, "cannot be told"), (1e6, "no change")], ids=["short", "long"]
)
def test_what_is_noisy_is_tried_until_it_can_be_told(
    monkeypatch: pytest.MonkeyPatch, budget_s: float, word: str
) -> None:
    perf = bench_on(simulated(monkeypatch, flop_per_s={"fp32": 1e6}, within=0.1), budget_s)
    _, alike = climbed(perf, {"alike": {"fused": False}})
    assert alike.word == word
    assert (alike.gain.n > 9) is (word == "no change")
    assert Outcome.INCONCLUSIVE not in {each.outcome for each in perf.notes.verdicts}


def test_a_graph_is_profiled_as_it_is_written(perf: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[bool] = []

    def profile(arm: Arm, *rest: Any, **about: Any) -> Any:
        captured.append(arm.written is not None)
        return profiling.profile(arm, *rest, **about)

    monkeypatch.setattr(climbing, "profile", profile)
    _, graphed = climbed(perf, {"graph": {"graph": True}}, fused=True)
    assert graphed.word == "faster"
    assert captured == [False]
    assert "% of its step, as it is written, in products" in perf.notes.pages[-1]


def test_a_batch_is_halved_until_a_step_is_short_enough(perf: Bench) -> None:
    recipe = Recipe(precision=FP32)
    assert fitting_samples(perf, recipe) == SAMPLES
    assert fitting_samples(perf, recipe, most_s=0.0) == 2
