"""HOST-BOUND where a simulated device waits for its host, and only there."""

import math
import random

import pytest
from fakes import FakeHostBound, block

from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import verdicts
from perfsuite.devices.cards import Spell
from perfsuite.judging.blocks import Block
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.host_bound import WORD, Kernels, Load, judge_host, load_of
from perfsuite.judging.stopping import LOOKS
from perfsuite.judging.thresholds import AgainstLimits, CompareLimits, ConvergenceLimits, Thresholds
from perfsuite.measuring.kernels import kernels_of

CASES = 100


def load(number: int, *, idle: tuple[float, float]) -> tuple[Load, float]:
    """Return what is found of a step that leaves the device idle for some share, and the share."""
    draw = random.Random(number)
    share = draw.uniform(*idle)
    launches, launch_s = draw.randrange(20, 80), draw.uniform(3e-6, 15e-6)
    # A kernel takes what the launch of the next leaves it, or longer, and the device never idles.
    kernel_s = launch_s * (1 - share if share else draw.uniform(1.2, 4.0))
    arm = FakeHostBound(
        launches=launches,
        launch_s=launch_s,
        kernel_s=kernel_s,
        within=0.05,
        queue_depth=200,
        seed=number,
    )
    blocks = [arm.turn(draw.choice((5, 20)))() for _ in range(2)]
    before_s, busy_s = arm.time.now_s, arm.time.busy_s
    arm.turn(10)()
    true = 1 - (arm.time.busy_s - busy_s) / (arm.time.now_s - before_s - 1000.0)
    found = load_of("bf16", blocks, kernels_of(arm, arm.time))
    assert found is not None
    return found, true


def test_a_device_that_idles_for_a_third_of_the_time_is_told_always() -> None:
    found = [load(number, idle=(0.3, 0.9)) for number in range(CASES)]
    assert all(true > 0.29 for _, true in found)
    words = [judge_host([each]).shown for each, _ in found]
    assert words.count(WORD) == CASES


@pytest.mark.parametrize("idle", [(0.0, 0.0), (0.0, 0.05)], ids=["busy", "nearly busy"])
def test_a_busy_device_is_never_called_host_bound(idle: tuple[float, float]) -> None:
    """Not even behind a full queue, where the host returns as late as if it were the limit."""
    found = [load(number, idle=idle) for number in range(CASES)]
    assert all(true < 0.06 for _, true in found)
    assert [judge_host([each]).outcome for each, _ in found] == [Outcome.PASS] * CASES


LIMITS = Thresholds(
    convergence=ConvergenceLimits(margin=0.02, max_skipped=0.02, min_scale=1.0, max_scale=2.0),
    compare=CompareLimits(margin=0.05, assumed_spread=0.01, environment="fail"),
    against=AgainstLimits(margin=0.01),  # a GPU's
)


def measured(seed: int, process: int, slower: float) -> dict[str, object]:
    """Return the figures of a host-bound step in a process, whose kernels take so much longer."""
    arm = FakeHostBound(
        launches=10,
        launch_s=1e-5,
        kernel_s=5e-6 * slower,
        within=0.05,
        between=0.01,
        seed=seed,
        process=process,
    )
    step_s, kernels = arm.turn(4)().step_s, kernels_of(arm, arm.time)
    assert kernels is not None
    figures = {"kernel_s": kernels.kernel_s, "step_s": step_s}
    metrics = {name: {"value": s, "unit": "s", "better": "lower"} for name, s in figures.items()}
    return {"metrics": metrics, "raw": {}}


def told(seed: int, slower: float) -> dict[str, str]:
    """Return what is said of figures, after as many pairs of processes as it takes, as ever."""
    restarts: list[Restart] = []
    found: dict[str, Verdict] = {}
    for pairs in LOOKS:
        for pair in range(len(restarts), pairs):
            before, after = (measured(seed, 2 * pair + n, (1.0, slower)[n]) for n in (0, 1))
            restarts.append(Restart(started="AB", duets={}, before=before, after=after))
        found = {each.gate: each for each in verdicts(restarts, LIMITS)}
        if all(each.outcome is not Outcome.INCONCLUSIVE for each in found.values()):
            break
    return {gate: verdict.shown for gate, verdict in found.items()}


def test_a_slower_kernel_is_found_under_a_host_bound_step() -> None:
    """By the sum of kernel times: the step takes as long as before."""
    words = [told(seed, 1.05) for seed in range(CASES)]
    assert {word["against step_s"] for word in words} == {"SAME"}
    assert [word["against kernel_s"] for word in words].count("SLOWER") >= 0.99 * CASES


def test_kernels_that_are_not_slower_are_not_told_so() -> None:
    assert all(told(seed, 1.0)["against kernel_s"] != "SLOWER" for seed in range(10))


def test_the_verdict_says_in_which_precision_and_what_would_help() -> None:
    busy = Load(label="fp32", host_s=0.003, device_s=0.008, kernel_s=0.0079)
    bound = Load(label="bf16", host_s=0.004, device_s=0.004, kernel_s=0.002)
    assert str(judge_host([busy, bound])) == (
        "HOST-BOUND host_bound: fp32 idle 1% of a step, host 3 ms, kernels 7.9 ms of 8 ms; bf16"
        " idle 50% of a step, host 4 ms, kernels 2 ms of 4 ms (in bf16 the device waits for the"
        " host: a step's time is the host's, and a slower kernel does not show in it; a larger"
        " batch, CUDA graphs (graph=True of the training) or torch.compile would help)"
    )


@pytest.mark.parametrize(
    ("host_s", "kernel_s", "outcome", "said"),
    [
        (1.0, None, Outcome.NOT_GATED, "unknown"),  # a full queue looks alike
        (0.4, None, Outcome.PASS, "idle at most 15%"),
        (0.3, 0.5, Outcome.NOT_GATED, "not for the host"),
        (0.9, 1.4, Outcome.PASS, "idle at most 15%"),  # kernels of several streams
    ],
)
def test_what_three_readings_do_not_tell_is_said(
    host_s: float, kernel_s: float | None, outcome: Outcome, said: str
) -> None:
    verdict = judge_host([Load(label="x", host_s=host_s, device_s=1.0, kernel_s=kernel_s)])
    assert verdict.outcome is outcome
    assert verdict.shown != WORD
    assert said in str(verdict)


def test_a_step_that_was_held_back_does_not_idle() -> None:
    def found(throttled: int) -> Verdict:
        reasons = [("heat",)] * throttled + [()] * (3 - throttled)
        blocks = [
            Block(steps=1, wall_s=2.0, device_s=2.0, host_s=1.5, throttled=each) for each in reasons
        ]
        told = load_of("x", blocks, Kernels(kernel_s=1.0, launches=100))
        assert told is not None
        return judge_host([told])

    assert found(throttled=1).shown == WORD
    held_back = found(throttled=2)
    assert held_back.outcome is Outcome.NOT_GATED
    assert "held back most of the time" in held_back.reason


def test_kernels_are_not_timed_while_the_device_is_held_back() -> None:
    def kernel_s(until_s: float) -> float:
        half = Spell(start_s=0.0, end_s=until_s, speed=0.5)
        arm = FakeHostBound(launches=10, kernel_s=0.001, held_back=(half,))
        found = kernels_of(arm, arm.time)
        assert found is not None
        return found.kernel_s

    # A thousand seconds pass before each of five repeats.
    assert kernel_s(3500.0) == pytest.approx(0.01)
    assert kernel_s(math.inf) == pytest.approx(0.02)


def test_on_a_cpu_there_is_nothing_to_say() -> None:
    assert load_of("fp32", [block()], None) is None
