"""A session of --perf-against with two ranks a side, which train with DDP, from end to end.

Time passes in its steps only where they say so, so that its verdicts do not rest on any timing.
"""

from typing import Any

import pytest
from projects import MYNET, Project, Result, saved

pytestmark = pytest.mark.slow

CONFTEST = """
import mynet
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from perfsuite.devices.cpu import HostClock
from perfsuite.devices.rank_clock import RankClock


@pytest.fixture
def timed(perf):
    def timed(what):
        model = DistributedDataParallel(torch.nn.Linear(8, 2))

        def step(batch):
            what()
            loss = model(batch).mean()
            loss.backward()
            return loss

        perf.clock = RankClock(HostClock(lambda: mynet.now_s), perf.machine.ranks)
        arm = perf.plain(step, [torch.ones(4, 8)], label="fp32")
        blocks = perf.time(perf.warm(arm), blocks=4)
        perf.metric("step_s", min(b.step_s for b in blocks), unit="s", better="lower")

    return timed
"""

BENCHMARKS = """
import itertools
import os
import signal

import mynet
import pytest
import torch.distributed as dist


@pytest.mark.many_ranks
def test_slow_rank(timed):
    timed(lambda: mynet.wait(mynet.STEP_S + dist.get_rank() * mynet.SLOWER_S))


def test_that_raises(timed):
    steps = itertools.count()

    def step():  # the others wait for this rank in the reduction of gradients
        mynet.wait()
        if mynet.BROKEN and dist.get_rank() == 1 and next(steps) == 3:
            raise ValueError("broken")

    timed(step)


def test_that_is_killed(timed):
    steps = itertools.count()

    def step():
        mynet.wait()
        if mynet.BROKEN and dist.get_rank() == 1 and next(steps) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    timed(step)


@pytest.mark.one_rank
def test_alone(timed):
    timed(mynet.wait)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("ranks-against"))
    project.write("benchmarks/conftest.py", CONFTEST)
    project.write("benchmarks/test_speed.py", BENCHMARKS)
    project.write("src/mynet/__init__.py", MYNET + "\nSLOWER_S = 0.1\nBROKEN = False\n")
    project.commit()
    project.write("src/mynet/__init__.py", MYNET + "\nSLOWER_S = 0.4\nBROKEN = True\n")
    return project


@pytest.fixture(scope="module")
def result(project: Project) -> Result:
    return project.against("--perf-ranks=2", f"--benchmark-json={project.home / 'run.json'}", "-v")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("slow_rank step_s", ["SLOWER", "2.000x [2.000, 2.000] (300 ms -> 600 ms)"]),
        ("that_raises", ["FAIL", "the code after could not run the benchmark"]),
        ("that_is_killed", ["FAIL", "the code after could not run the benchmark"]),
    ],
)
def test_verdicts_are_of_the_slowest_rank_and_name_one_that_fails(
    result: Result, name: str, parts: list[str]
) -> None:
    result.ends_with(1)
    result.part(" perfsuite ", " short test summary ").line(f"  {name}", *parts)


@pytest.mark.parametrize(
    "why", ["rank 1 of 2: ValueError: broken", "rank 1 of 2 ended with SIGKILL, as a process does"]
)
def test_the_cause_is_told_and_not_what_other_ranks_made_of_it(result: Result, why: str) -> None:
    assert why in result.part(" perfsuite ").out, result.out
    result.lacks("Connection closed by peer", "Traceback")


def test_a_benchmark_of_one_rank_is_left_out(result: Result) -> None:
    result.lacks("test_alone")


def test_the_run_tells_each_ranks_time_of_each_block(project: Project, result: Result) -> None:
    run = saved(project.home / "run.json")
    assert run["perfsuite"]["hardware"]["key"].endswith("-ranks-1x2")
    records = {each["name"]: each["extra_info"]["perfsuite"] for each in run["benchmarks"]}
    restarts: list[Any] = records["test_slow_rank"]["against"]["restarts"]
    for restart in restarts:
        turns = restart["turns"]["step_s"]
        for side, block in zip(turns["order"], turns["blocks"], strict=True):
            other_s = 0.3 if side == "A" else 0.6
            assert block["ranks_s"] == pytest.approx([0.2, other_s])
            assert block["wall_s"] == pytest.approx(other_s)


def test_nothing_is_left_behind(project: Project, result: Result) -> None:
    assert project.left_behind() == []
