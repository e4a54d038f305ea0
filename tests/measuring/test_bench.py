"""A benchmark on a simulated device: what was throttled is set aside, and duets know their end."""

import pytest
from climbs import bench_on, simulated
from suites import Suite, load

from perfsuite.devices.host import CpuUse
from perfsuite.judging.stopping import LOOKS
from perfsuite.measuring.turns import Alone

CONFTEST = """
from dataclasses import replace

import pytest
from fakes import FakeArm, FakeTime

from perfsuite.devices.cards import Spell
from perfsuite.measuring.machine import machine
from perfsuite.session.stash import MACHINE

# A block is two steps of a second, and what is around it takes a thousand.
HELD_BACK = {held_back}


def pytest_configure(config):
    device = FakeTime(held_back=[Spell(start_s=s, end_s=e, speed=0.5) for s, e in HELD_BACK])
    config.stash[MACHINE] = replace(machine("cpu"), device=device)


@pytest.fixture
def arm(perf):
    return FakeArm(perf.machine.device, label="an arm")


@pytest.fixture
def slower(perf):
    return FakeArm(perf.machine.device, lambda _: 2.0, label="a slower arm")
"""

BLOCKS = """
def test_a(perf, arm):
    perf.time(arm, blocks=4)
    perf.metric("step_s", 0.01, unit="s", better="lower")
"""

IN_TURNS = """
from perfsuite.judging.gates import at_most


def test_a(perf, arm, slower):
    def judge(turns):
        return at_most("peak_ratio", turns.ratio("B", over="A", confidence=0.99), 1.5)

    turns = perf.duet(arm, {second}, judge)
    perf.metric("pairs", len(turns.quads), unit="1", better="higher")
"""
ONE = "[(1001, 1001.5)]"
"""In the first block; the second begins at 2,002 s, the third at 3,004 s."""
MOST = "[(1001, 1001.5), (2003, 2003.5), (3005, 3005.5)]"


class Simulation(Suite):
    """A suite whose benchmarks run on a simulated device."""

    def simulate(self, held_back: str, benchmark: str) -> None:
        self.write("conftest.py", CONFTEST.replace("{held_back}", held_back))
        self.write("test_steps.py", benchmark)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(pytester, monkeypatch)


def test_throttled_blocks_are_set_aside_and_counted(suite: Simulation) -> None:
    suite.simulate(ONE, BLOCKS)
    (entry,) = load(suite.record())["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert entry["stats"]["data"] == [1.0, 1.0, 1.0]
    throttled = [block["throttled"] for block in record["raw"]["blocks"]]
    assert throttled == [["simulated slowdown"], [], [], []]
    verdict, figure = record["verdicts"]
    assert figure["outcome"] == "NOT GATED"
    assert (verdict["gate"], verdict["outcome"]) == ("throttling", "PASS")
    assert verdict["figure"].startswith("1 of 4 timings set aside")


def test_a_benchmark_that_was_throttled_most_of_the_time_is_not_green(suite: Simulation) -> None:
    suite.simulate(MOST, BLOCKS)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*INCONCLUSIVE throttling: 3 of 4 timings set aside*slowdown*"])


def test_a_duet_ends_when_its_verdict_is_clear_and_that_is_no_change_of_config(
    suite: Simulation,
) -> None:
    suite.simulate("[]", IN_TURNS.format(second="arm"))
    (entry,) = load(suite.record())["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert record["metrics"]["pairs"]["value"] == LOOKS[0]
    assert record["raw"]["duet"]["order"] == ("ABBABAAB" * LOOKS[0])[: 4 * LOOKS[0]]
    assert record["raw"]["duet"]["arms"] == ["an arm", "an arm"]
    assert "quads" not in record["config"]


def test_a_duet_that_stays_unclear_ends_with_its_budget(suite: Simulation) -> None:
    # The arms scatter by nothing, so the noise that keeps it unclear is made up.
    text = IN_TURNS.format(second="slower").replace('at_most("', 'unclear("')
    text += """

def unclear(gate, estimate, maximum):
    from dataclasses import replace
    return at_most(gate, replace(estimate, low=1.4, high=1.6), maximum)
"""
    suite.simulate("[]", text)
    result = suite.run("--perf-budget=1e-9", "--benchmark-json=run.json")
    result.assert_outcomes(failed=1)
    (entry,) = load(suite.folder / "run.json")["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["metrics"]["pairs"]["value"] == LOOKS[0]


def test_a_slower_arm_turns_its_gate_red(suite: Simulation) -> None:
    suite.simulate("[]", IN_TURNS.format(second="slower"))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL peak_ratio: 2.000x *at most 1.5x*"])


def test_a_duet_counts_the_groups_that_it_set_aside_and_not_their_blocks(suite: Simulation) -> None:
    # Four blocks of a group begin 1,002 s apart; each group is held back in one of them.
    spells = [(1001 + 4008 * group, 1001.5 + 4008 * group) for group in range(9)]
    suite.simulate(str(spells), IN_TURNS.format(second="arm"))
    result = suite.run("--perf-budget=1e-9")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*INCONCLUSIVE throttling: 9 of 9 timings set aside*",
            "*INCONCLUSIVE peak_ratio: *9 of 9 groups were throttled and set aside*",
        ]
    )


LOOP = """
def test_a(perf):
    with perf.loop(blocks=3, skip=1) as loop:
        for _ in range(7):
            perf.machine.device.launch(2.0)
            loop.step()
"""


@pytest.mark.parametrize("wanted", [3, 9], ids=["long-enough", "too-short"])
def test_a_loop_of_somebody_else_is_a_figure(suite: Simulation, wanted: int) -> None:
    suite.simulate("[]", LOOP.replace("blocks=3", f"blocks={wanted}"))
    result = suite.run("--benchmark-json=run.json", "--perf-workload=tiny")
    if wanted > 3:
        result.stdout.fnmatch_lines(["the loop took 7 steps, in which 3 blocks of 2*"])
        return
    (entry,) = load(suite.folder / "run.json")["benchmarks"]
    assert entry["extra_info"]["perfsuite"]["metrics"]["step_s"]["value"] == 2.0


def test_throttling_does_not_hide_a_figure_that_nothing_is_asked_of(suite: Simulation) -> None:
    suite.simulate(ONE, BLOCKS)
    result = suite.run()
    result.stdout.fnmatch_lines(["*NOT GATED*step_s*0.01 s*"])


SUSTAINED = """
from itertools import count

import torch

import perfsuite
from perfsuite.benchmarks import sustained


def test_a(perf):
    def waiting(precision, *_):
        taken = count(1)

        def step(batch):
            stalls = precision == "bf16" and next(taken) % EVERY == 0
            perf.machine.device.launch(0.03 if stalls else 0.001)
            return batch.mean()

        return perfsuite.Training(step=step, batches=[torch.ones(8, 3)], state=[])

    perf.workload = perfsuite.Workload(name="waiting", make=waiting)
    sustained.test_sustained(perf, perfsuite.Precision.bf16)
"""


@pytest.mark.parametrize(
    ("every", "mean_s", "outcome"),
    [(100, 0.00129, "FAIL"), (10**9, 0.001, "PASS")],
    ids=["stalls", "healthy"],
)
def test_hundreds_of_steps_show_a_stall_in_every_hundredth(
    suite: Simulation, every: int, mean_s: float, outcome: str
) -> None:
    suite.simulate("[]", f"EVERY = {every}\n{SUSTAINED}")
    suite.write("thresholds.toml", "[defaults.stalls]\nmax_ratio = 1.1\n")
    result = suite.run("--benchmark-json=run.json")
    (entry,) = load(suite.folder / "run.json")["benchmarks"]
    record = entry["extra_info"]["perfsuite"]
    assert record["metrics"]["step_s"]["value"] == pytest.approx(mean_s)
    assert [(each["gate"], each["outcome"]) for each in record["verdicts"]] == [("stalls", outcome)]
    paces = record["raw"]["sustained"]
    assert paces["fp32"]["steps"] == paces["bf16"]["steps"] == 900
    assert paces["bf16"]["p50_s"] == pytest.approx(0.001)
    assert record["config"]["block_steps"] is None
    shown = result.stdout.str()
    assert (
        "fp32 sustained: 900 steps of 1 ms on average, p50 1, p95 1 and p99 1 ms; no stalls"
        in shown
    )
    told = "22.5% of the time is lost in stalls: 1% of steps take 30 times as long"
    assert (told in shown) is (outcome == "FAIL")


@pytest.mark.parametrize("alone", [True, False])
def test_the_process_of_the_other_tree_is_none_of_others(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    seen = iter(
        [
            CpuUse(at_s=0.0, cpus=2, busy_s=0.0, own_s=0.0),
            CpuUse(at_s=10.0, cpus=2, busy_s=15.0, own_s=5.0),
        ]
    )
    monkeypatch.setattr("perfsuite.measuring.bench.read_cpu_use", lambda: next(seen))
    monkeypatch.setattr(Alone, "two_arms", alone)
    state = bench_on(simulated(monkeypatch)).record().state["after"]
    assert state["others_cpu"] == (0.5 if alone else None)
