"""The first step of a process, cold and warm: what is told of it, and what cannot be told."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeTime
from torch import Tensor, nn

from perfsuite import Bench, Precision, Training, Workload
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import load_thresholds
from perfsuite.measuring.compiler import lacks_compiler
from perfsuite.measuring.first_step import FirstStep, first_steps, take_first_step
from perfsuite.measuring.machine import machine
from perfsuite.measuring.turns import Alone
from perfsuite.records.notes import Notes

CalledWith = Callable[[nn.Module], Callable[[Tensor], Tensor]]
CPU = torch.device("cpu")
COLD = FirstStep(first_step_s=20.0, compile_s=19.0, hits=0, misses=2)
WARM = FirstStep(first_step_s=2.0, compile_s=1.5, hits=2, misses=0)


def compiled(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    called: Callable[[Tensor], Tensor] = torch.compile(layer, backend="eager")
    return called


def workload(called: CalledWith = compiled) -> Workload:
    def make(_: Precision, __: torch.device, ___: int) -> Training:
        layer = nn.Linear(4, 1)
        run = called(layer)
        return Training(step=lambda batch: run(batch).sum(), batches=[torch.ones(8, 4)], state=[])

    return Workload(name="small", make=make)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def made(called: CalledWith = compiled) -> Bench:
        here = machine("cpu")
        return Bench(
            Notes("test_compilation", markers=()),
            machine=here,
            workload=workload(called),
            thresholds=load_thresholds(tmp_path / "none.toml", here.hardware.key),
            turns=Alone(lambda *_: None, budget_s=1.0),
        )

    return made


class Processes:
    """Stand for fresh ones, and note the variables that each is given."""

    def __init__(self, *found: FirstStep) -> None:
        self.found = iter(found)
        self.given: list[Mapping[str, str]] = []

    def __call__(self, variables: Mapping[str, str]) -> FirstStep:
        self.given.append(dict(variables))
        assert Path(variables["TORCHINDUCTOR_CACHE_DIR"]).is_dir()
        return next(self.found)


def judged(bench: Bench, *found: FirstStep) -> tuple[dict[str, Any], Processes]:
    processes = Processes(*found)
    first_steps(bench, Precision.bf16, processes)
    return {verdict.gate: verdict for verdict in bench.notes.verdicts}, processes


def test_a_step_is_timed_until_the_device_has_done_it() -> None:
    device = FakeTime()
    clock = device.clock()

    def slow(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        run = compiled(layer)

        def called(batch: Tensor) -> Tensor:
            device.launch(3.0)
            return run(batch)

        return called

    found = take_first_step(workload(slow).arm(Precision.fp32, CPU), clock)
    assert found.first_step_s == pytest.approx(3.0)
    assert found.compile_s is not None
    assert (found.hits, found.misses) == (0, 0)  # such a backend keeps no cache


@pytest.mark.parametrize("private", ["get_compilation_metrics", "counters"])
def test_what_torch_does_not_tell_is_unknown(private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = workload(lambda layer: layer).arm(Precision.fp32, CPU)
    monkeypatch.delattr(f"torch._dynamo.utils.{private}")
    found = take_first_step(arm, FakeTime().clock())
    assert None in (found.compile_s, found.misses)


def test_the_second_process_has_the_caches_of_the_first_one(bench: Callable[..., Bench]) -> None:
    perf = bench()
    verdicts, processes = judged(perf, COLD, WARM)
    first, second = processes.given
    assert first == second
    assert not Path(first["TORCHINDUCTOR_CACHE_DIR"]).exists()
    assert verdicts["first_step"].figure == "20 s cold, 2 s warm"
    assert verdicts["first_step"].outcome is Outcome.NOT_GATED
    assert verdicts["compile_cache"].outcome is Outcome.PASS
    metrics = perf.record().metrics
    assert {name: metric.value for name, metric in metrics.items()} == {
        "cold_first_step_s": 20.0,
        "cold_compile_s": 19.0,
        "warm_first_step_s": 2.0,
        "warm_compile_s": 1.5,
    }


def test_what_a_second_process_compiles_anew_is_red(bench: Callable[..., Bench]) -> None:
    missed = FirstStep(first_step_s=9.0, compile_s=8.0, hits=1, misses=1)
    verdicts, _ = judged(bench(), COLD, missed)
    assert verdicts["compile_cache"].outcome is Outcome.FAIL
    assert verdicts["compile_cache"].figure == "1 graphs were found in a cache, 1 were not"


def test_what_is_unknown_is_not_gated(bench: Callable[..., Bench]) -> None:
    unknown = FirstStep(first_step_s=9.0)
    verdicts, _ = judged(bench(), unknown, unknown)
    assert verdicts["compile_cache"].outcome is Outcome.NOT_GATED


@pytest.mark.parametrize(
    ("called", "found", "figure"),
    [
        (lambda layer: layer, [], "nothing is compiled"),
        (compiled, [FirstStep(no_compiler=True)], "nothing can be compiled"),
    ],
    ids=["not compiled", "no compiler"],
)
def test_one_line_says_why_nothing_was_timed(
    called: CalledWith, found: list[FirstStep], figure: str, bench: Callable[..., Bench]
) -> None:
    perf = bench(called)
    verdicts, processes = judged(perf, *found)
    (verdict,) = verdicts.values()
    assert (verdict.outcome, verdict.figure) == (Outcome.NOT_GATED, figure)
    assert len(processes.given) == len(found)
    assert perf.notes.times_s  # that of looking


def test_a_missing_compiler_is_told_from_other_errors() -> None:
    missing = pytest.importorskip("torch._inductor.exc").InvalidCxxCompiler
    error = RuntimeError("backend failed")
    assert not lacks_compiler(error)
    error.__cause__ = missing()
    assert lacks_compiler(error)
