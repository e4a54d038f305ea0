"""The first step of a fresh process: how long it takes, cold and with the caches of another one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from perfsuite.devices.device import Clock
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import cached, not_gated
from perfsuite.measuring.compiler import told_by_torch
from perfsuite.measuring.scripted_run import compiles
from perfsuite.training.arm import Arm

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench

FreshProcess = Callable[[Mapping[str, str]], "FirstStep"]
"""Has a fresh process, with these variables in its environment, take the first step."""

GATE = "first_step"


class FirstStep(msgspec.Struct, frozen=True, kw_only=True):
    """What the first step of a process took.

    Attributes:
        first_step_s: until the device had done it.
        compile_s: of that; None where torch does not tell.
        hits: graphs that were found in a cache; None where torch does not tell.
        misses: graphs that were looked for in a cache, and compiled.
        no_compiler: whether there is none for what was to be compiled, so that all else is 0.
    """

    first_step_s: float = 0.0
    compile_s: float | None = None
    hits: int | None = None
    misses: int | None = None
    no_compiler: bool = False


def take_first_step(arm: Arm, clock: Clock) -> FirstStep:
    """Take the first step of an arm, in a process that has taken none."""
    (batch,) = arm.take(1)
    with told_by_torch() as told:
        clock.start()
        arm.step(batch)
        first_step_s, _ = clock.stop()
    return FirstStep(
        first_step_s=first_step_s, compile_s=told.compile_s, hits=told.hits, misses=told.misses
    )


def first_steps(perf: "Bench", precision: Precision, fresh_process: FreshProcess) -> bool:
    """Have two fresh processes take the first step, and judge what they found; tell whether so.

    The second one has the caches that the first one left, in a folder of their own. Where nothing
    is compiled, or nothing can be, that is NOT GATED, and False.
    """
    perf.clock.start()
    arm = perf.fresh(precision)
    (batch,) = arm.take(1)
    compiled = compiles(arm, batch)
    perf.timed([perf.clock.stop()[0]])
    if not compiled:
        perf.gate(not_gated(GATE, "nothing is compiled", "the step has no torch.compile"))
        return False
    with TemporaryDirectory(prefix="perfsuite-") as folder:
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": folder,
            "TRITON_CACHE_DIR": str(Path(folder) / "triton"),
        }
        perf.turns.show("compiling, cold", 0, 2)
        cold = fresh_process(caches)
        if cold.no_compiler:
            reason = "the machine has no C++ compiler: install g++"
            perf.gate(not_gated(GATE, "nothing can be compiled", reason))
            return False
        perf.turns.show("compiling, warm", 1, 2)
        warm = fresh_process(caches)
    perf.timed([cold.first_step_s])
    steps = {"cold": cold, "warm": warm}
    perf.keep("first_steps", {name: msgspec.to_builtins(each) for name, each in steps.items()})
    for name, each in steps.items():
        perf.metric(f"{name}_first_step_s", each.first_step_s, unit="s", better="lower")
        if each.compile_s:
            perf.metric(f"{name}_compile_s", each.compile_s, unit="s", better="lower")
    figure = ", ".join(f"{each.first_step_s:.3g} s {name}" for name, each in steps.items())
    perf.gate(
        not_gated(GATE, figure, "compared with a baseline only"),
        cached("compile_cache", warm.hits, warm.misses),
    )
    return True
