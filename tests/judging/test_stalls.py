"""Stalls on simulated time: what they take is told, where the arms differ, and only there."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeArm, FakeTime

from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import stalls_of, verdicts
from perfsuite.judging.blocks import Block
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.interleaving import Duet, quad, take_turns
from perfsuite.judging.stalls import judge_speedup, judge_stalls, pace_of, stalls_in, told
from perfsuite.judging.thresholds import (
    AgainstLimits,
    CompareLimits,
    ConvergenceLimits,
    Thresholds,
)
from perfsuite.measuring.timing import time_block

STEP_S = 0.01
ASKED = Thresholds(
    convergence=ConvergenceLimits(margin=0.02, max_skipped=0.02, min_scale=1.0, max_scale=2.0),
    compare=CompareLimits(margin=0.05, assumed_spread=0.01, environment="fail"),
    against=AgainstLimits(margin=0.05),
)

StepTimes = Callable[[int], float]


def steady(draw: random.Random, step_s: float = STEP_S) -> StepTimes:
    return lambda _: step_s * draw.gauss(1.0, 0.02)


def stalling(every: int, times: float, draw: random.Random, step_s: float = STEP_S) -> StepTimes:
    plain = steady(draw, step_s)
    return lambda step: plain(step) * (times if step % every == every - 1 else 1.0)


def busy(draw: random.Random, share: float = 0.005) -> StepTimes:
    """Return a step on a machine that stalls a share of all steps, for as long as it likes."""
    return lambda _: (
        STEP_S * draw.gauss(1.0, 0.03) + draw.expovariate(10.0) * (draw.random() < share)
    )


def restarts(
    before: StepTimes,
    after: StepTimes,
    *,
    count: int = 18,
    steps: int = 2,
    quads: int = 6,
    seed: int = 1,
) -> list[Restart]:
    """Return restarts whose processes are at any point between two stalls."""
    draw, found = random.Random(seed), []
    for index in range(count):
        time = FakeTime()
        arms = [FakeArm(time, step_s) for step_s in (before, after)]
        for arm in arms:
            arm.steps = draw.randrange(100)
        first, second = (arm.turn(steps) for arm in arms)
        duet = take_turns(first, second, index=index, quads=lambda _: quads)
        side: dict[str, Any] = {"metrics": {}, "raw": {}}
        found.append(Restart(started="AB", duets={"step_s": duet}, before=side, after=side))
    return found


def judged(found: list[Restart]) -> Verdict:
    (verdict,) = verdicts(found, ASKED)
    return verdict


def in_turns(first: StepTimes, second: StepTimes, *, quads: int, steps: int) -> Duet:
    time = FakeTime()
    one, other = (FakeArm(time, step_s).turn(steps) for step_s in (first, second))
    return Duet(tuple(quad(one, other, index) for index in range(quads)))


def blocks_of(step_s: StepTimes, *, blocks: int, steps: int) -> list[Block]:
    turn = FakeArm(FakeTime(), step_s).turn(steps)
    return [turn() for _ in range(blocks)]


@pytest.mark.parametrize("steps", [2, 10, 50])
@pytest.mark.parametrize(("every", "times"), [(5, 3.0), (20, 10.0), (100, 30.0)])
def test_stalls_are_counted_and_sized(steps: int, every: int, times: float) -> None:
    found = stalls_in(blocks_of(stalling(every, times, random.Random(1)), blocks=100, steps=steps))
    assert found is not None
    assert found.share == pytest.approx(1 / every, abs=1 / 200)
    assert found.times == pytest.approx(times, rel=0.05)
    assert found.typical_s == pytest.approx(STEP_S, rel=0.05)
    lost = (times - 1) / every
    assert found.of_time == pytest.approx(lost / (1 + lost), rel=0.1)


def test_on_a_rough_machine_a_step_must_take_longer_to_be_a_stall() -> None:
    draw = random.Random(1)
    rough = blocks_of(lambda _: STEP_S * draw.lognormvariate(0.0, 0.4), blocks=200, steps=10)
    calm = blocks_of(lambda _: STEP_S * draw.lognormvariate(0.0, 0.1), blocks=200, steps=10)
    for blocks in (rough, calm):
        found = stalls_in(blocks)
        assert found is not None
        assert found.of_time < 0.1
        assert bool(found.share) is (blocks is rough)


def test_blocks_of_an_older_perfsuite_tell_no_stalls() -> None:
    assert stalls_in([]) is None
    old = [Block(steps=2, wall_s=1.0), Block(steps=2, wall_s=9.0)]
    assert stalls_in(old) is None
    assert told(old, old) == ""


@pytest.mark.parametrize("steps", [2, 10])
def test_a_stall_in_every_twentieth_step_is_told_and_not_as_a_slower_typical_step(
    steps: int,
) -> None:
    draw = random.Random(2)
    found = restarts(steady(draw), stalling(20, 10.0, draw), steps=steps)
    verdict = judged(found)
    assert (verdict.shown, verdict.outcome) == ("SLOWER", Outcome.FAIL)
    assert verdict.figure.endswith(" ms)")
    assert 1.2 < float(verdict.figure.partition("x")[0]) < 1.7
    assert "5" in verdict.reason.partition("% of steps take 1")[0]
    assert "as long (before: none); this is the mean step; a typical one " in verdict.reason
    (line,) = stalls_of(found)
    assert line.startswith("stalls: ")
    assert line.endswith("(before: none); no operator is named")


def test_a_stall_in_every_hundredth_step_is_told_where_a_restart_is_long_enough() -> None:
    draw = random.Random(3)
    long = restarts(steady(draw), stalling(100, 30.0, draw), steps=50, quads=2)
    verdict = judged(long)
    assert verdict.shown == "SLOWER"
    assert "stalls: 1% of steps take 30 times as long (before: none)" in verdict.reason


@pytest.mark.parametrize("every", [20, 100])
def test_stalls_that_both_sides_have_are_no_change(every: int) -> None:
    draw = random.Random(4)
    step_s = stalling(every, 10.0, draw)
    found = restarts(step_s, step_s, steps=50, quads=4)
    assert judged(found).shown == "SAME"
    assert stalls_of(found) == []


@pytest.mark.parametrize(("share", "green"), [(0.005, 39), (0.02, 30)])
def test_a_busy_machine_is_not_red(share: float, green: int) -> None:
    draw = random.Random(5)
    sessions = [restarts(busy(draw, share), busy(draw, share), count=41, seed=n) for n in range(40)]
    words = Counter(judged(each).shown for each in sessions)
    assert words.keys() <= {"SAME", "INCONCLUSIVE"}
    assert words["SAME"] >= green


def test_stalls_too_few_to_say_leave_the_verdict_open() -> None:
    draw = random.Random(6)
    found = restarts(steady(draw), stalling(40, 10.0, draw), count=12, steps=2, quads=6)
    verdict = judged(found)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "they are too few to say; give it more --perf-budget" in verdict.reason


def test_a_slower_step_is_told_as_before_whatever_both_sides_stall() -> None:
    draw = random.Random(7)
    step_s = stalling(50, 5.0, draw), stalling(50, 5.0, draw, 1.3 * STEP_S)
    verdict = judged(restarts(*step_s, steps=10))
    assert verdict.shown == "SLOWER"
    assert "stalls" not in verdict.reason


@pytest.mark.parametrize(
    ("every", "outcome"), [(20, Outcome.FAIL), (None, Outcome.PASS)], ids=["stalls", "healthy"]
)
def test_a_precision_that_stalls_has_to_be_faster_all_the_same(
    every: int | None, outcome: Outcome
) -> None:
    draw = random.Random(8)
    fast = steady(draw, STEP_S / 2) if every is None else stalling(every, 20.0, draw, STEP_S / 2)
    turns = in_turns(steady(draw), fast, quads=61, steps=4)
    verdict = judge_speedup("amp_speedup", turns, 1.8, confidence=0.99, name="fp32")
    assert verdict.outcome is outcome
    assert (
        "% of steps take 20 times as long (fp32: none); this is the mean" in verdict.reason
    ) is (every is not None)
    if every:
        reported = judge_speedup("amp_speedup", turns, None, confidence=0.99, name="fp32")
        assert reported.outcome is Outcome.NOT_GATED
        assert "no threshold is set; mean step 1." in reported.reason


@pytest.mark.parametrize(
    ("every", "outcome"), [(100, Outcome.FAIL), (None, Outcome.PASS)], ids=["stalls", "healthy"]
)
def test_what_one_precision_stalls_is_judged_beside_the_other(
    every: int | None, outcome: Outcome
) -> None:
    draw = random.Random(9)
    fast = steady(draw, STEP_S / 2) if every is None else stalling(every, 30.0, draw, STEP_S / 2)
    turns = in_turns(stalling(50, 5.0, draw), fast, quads=12, steps=50)
    if every is None:
        turns = in_turns(steady(draw), fast, quads=12, steps=50)
    assert judge_stalls(turns, 1.1, confidence=0.99).outcome is outcome


def test_the_pace_of_hundreds_of_steps() -> None:
    time = FakeTime()
    arm = FakeArm(time, stalling(100, 10.0, random.Random(10)))
    clock, steps_s, blocks = time.clock(), [], []
    for _ in range(10):
        blocks.append(time_block(arm, clock, 50))
        steps_s += clock.laps_s()
    pace = pace_of(steps_s, blocks)
    assert pace.steps == len(steps_s) == 500
    assert pace.mean_s == pytest.approx(STEP_S * 1.09, rel=0.01)
    assert pace.p50_s <= pace.p95_s <= pace.p99_s < 10.5 * STEP_S
    assert pace.stalls is not None
    assert str(pace).endswith(
        "8.3% of the time is lost in stalls: 1% of steps take 10 times as long"
    )
