"""Profiling a step with torch.profiler, outside of whatever is timed."""

from statistics import median

import torch
from torch.profiler import ProfilerActivity

from perfsuite.measuring.timing import Timeable, clock_for
from perfsuite.records.operators import Operator, Profile, profile_of

STEPS, REPEATS = 4, 5


def profile(arm: Timeable, device: torch.device) -> Profile:
    """Return where the time of a warm arm's step goes: medians over repeats of a few steps.

    On a GPU it is the time of the kernels that each operator launched, on a CPU the time in
    the operator itself, and whatever is left of the wall clock's is outside of operators.
    Profiling slows a step down, so that its sum is not its step time.
    """
    seen = [_profile_once(arm, device) for _ in range(REPEATS)]
    names = {name for found, _ in seen for name in found}
    found = {
        name: Operator(
            self_s=median(found[name].self_s if name in found else 0.0 for found, _ in seen),
            calls=median(found[name].calls if name in found else 0.0 for found, _ in seen),
        )
        for name in names
    }
    clock = "device" if device.type == "cuda" else "cpu"
    return profile_of(found, step_s=median(step_s for _, step_s in seen), clock=clock)


def _profile_once(arm: Timeable, device: torch.device) -> tuple[dict[str, Operator], float]:
    """Return operators, and seconds by the wall clock, of a step on average over STEPS."""
    on_cuda = device.type == "cuda"
    batches = arm.take(STEPS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else ())]
    clock = clock_for(device)
    with torch.profiler.profile(activities=activities) as profiler:
        clock.start()
        for images, labels in batches:
            arm.step(images, labels)
        wall_s, _ = clock.stop()
    found = {}
    for each in profiler.key_averages():
        kernel = each.device_type.name != "CPU"
        # A kernel's time is its operator's too, and would count twice; its name may tell a
        # layout conversion all the same.
        self_us = 0.0 if kernel else each.self_cpu_time_total
        if on_cuda and not kernel:
            self_us = each.self_device_time_total
        found[each.key] = Operator(self_s=self_us * 1e-6 / STEPS, calls=each.count / STEPS)
    return found, wall_s / STEPS
