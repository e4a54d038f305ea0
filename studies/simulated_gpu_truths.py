"""Truths that are planted on a simulated GPU, and what has to be said of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfsuite.devices.cards import Spell

MARGIN = 0.02  # of two trees, which scatter by so little
MINIMUM = 1.55  # of a speed-up, as benchmarks/thresholds.toml asks of NVIDIA's
THIRD = Spell(start_s=0.0, end_s=0.4, speed=0.6, every_s=1.2)
NEIGHBOUR = Spell(start_s=0.0, end_s=math.inf, speed=0.7)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is planted after, and what has to be said of it, by figure: any of some words."""

    name: str
    asked: str  # two trees that take turns, a night beside promoted runs, or a speed-up
    precision: str
    said: Mapping[str, Sequence[str]]
    kernel: float = 1.0  # how many times as long kernels take
    host: float = 1.0  # how many times as long launches take
    held_back: tuple[Spell, ...] = ()
    neighbours: tuple[Spell, ...] = ()
    pays: bool = True  # whether products of half precision take less than those of fp32


Words = Mapping[str, Sequence[str]]
SAME: Words = {"step_s": ["SAME"], "kernel_s": ["SAME"]}
SLOWER: Words = {"step_s": ["SLOWER"], "kernel_s": ["SLOWER"]}
BUSY_DEVICE: Words = {"host_bound": ["PASS"]}
BUSY_HOST: Words = {"host_bound": ["HOST-BOUND"]}
PASSED: Words = {"step_s": ["PASS"], "kernel_s": ["PASS"]}
FAILED: Words = {"step_s": ["FAIL"], "kernel_s": ["FAIL"]}
EXCUSED = "INCONCLUSIVE: contaminated"
EXCUSED_BOTH: Words = {"step_s": [EXCUSED], "kernel_s": [EXCUSED]}
TREES, A_NIGHT, SPEEDUP = "two trees", "a night", "a speed-up"
THROTTLED = "throttling in a third of the time"
TRUTHS = (
    Truth("nothing", TREES, "fp32", {**SAME, **BUSY_DEVICE}),
    Truth("nothing", TREES, "fp16", {**SAME, **BUSY_HOST}),
    Truth("kernel +3 %", TREES, "fp32", {**SLOWER, **BUSY_DEVICE}, kernel=1.03),
    Truth("kernel +3 %", TREES, "fp16", {**SAME, "kernel_s": ["SLOWER"], **BUSY_HOST}, kernel=1.03),
    Truth("host +20 %", TREES, "fp32", {**SAME, **BUSY_DEVICE}, host=1.2),
    Truth("host +20 %", TREES, "fp16", {**SAME, "step_s": ["SLOWER"], **BUSY_HOST}, host=1.2),
    Truth(THROTTLED, TREES, "fp32", {**SAME, **BUSY_DEVICE}, held_back=(THIRD,)),
    Truth(
        f"{THROTTLED}, kernel +10 %",
        TREES,
        "fp32",
        {**SLOWER, **BUSY_DEVICE},
        held_back=(THIRD,),
        kernel=1.1,
    ),
    Truth("nothing", A_NIGHT, "fp32", PASSED),
    Truth("kernel +20 %", A_NIGHT, "fp32", FAILED, kernel=1.2),
    Truth(THROTTLED, A_NIGHT, "fp32", PASSED, held_back=(THIRD,)),
    Truth("a neighbour", A_NIGHT, "fp32", EXCUSED_BOTH, neighbours=(NEIGHBOUR,)),
    # A step that waits for its host may not be slower beside a neighbour.
    Truth(
        "a neighbour",
        A_NIGHT,
        "fp16",
        {"step_s": ["PASS", EXCUSED], "kernel_s": [EXCUSED]},
        neighbours=(NEIGHBOUR,),
    ),
    Truth("nothing", SPEEDUP, "fp16", {"amp_speedup": ["PASS"], **BUSY_DEVICE}),
    Truth(
        "AMP stopped paying", SPEEDUP, "fp16", {"amp_speedup": ["FAIL"], **BUSY_DEVICE}, pays=False
    ),
    Truth("host +20 %", SPEEDUP, "fp16", {"amp_speedup": ["PASS"], **BUSY_DEVICE}, host=1.2),
    Truth(THROTTLED, SPEEDUP, "fp16", {"amp_speedup": ["PASS"], **BUSY_DEVICE}, held_back=(THIRD,)),
)
