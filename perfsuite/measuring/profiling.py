"""Profiling a step with torch.profiler, outside of whatever is timed."""

from statistics import median

import torch

from perfsuite.devices.device import Device
from perfsuite.measuring.timing import Timeable
from perfsuite.records.operators import Operator, Profile, profile_of

STEPS, REPEATS = 4, 5


def profile(arm: Timeable, device: Device) -> Profile:
    """Return where the time of a warm arm's step goes: medians over repeats of a few steps.

    On a GPU it is the time of the kernels that each operator launched, on a CPU the time in
    the operator itself. Profiling slows a step down: the sum is not its step time.
    """
    runs, steps_s = zip(*(_profile_once(arm, device) for _ in range(REPEATS)), strict=True)
    found, unseen = {}, Operator(self_s=0.0, calls=0.0)
    for name in set().union(*runs):
        seen = [run.get(name, unseen) for run in runs]
        self_s, calls = median(each.self_s for each in seen), median(each.calls for each in seen)
        found[name] = Operator(self_s=self_s, calls=calls)
    return profile_of(found, step_s=median(steps_s), clock=device.profiled_by)


def _profile_once(arm: Timeable, device: Device) -> tuple[dict[str, Operator], float]:
    """Return operators, and seconds by the wall clock, of a step on average over STEPS."""
    batches, clock = arm.take(STEPS), device.clock()
    with torch.profiler.profile(activities=device.profiler_activities()) as profiler:
        clock.start()
        for batch in batches:
            arm.step(batch)
        wall_s, _ = clock.stop()
    found = {}
    for each in profiler.key_averages():
        kernel = each.device_type.name != "CPU"
        # A kernel's time is its operator's too, and would count twice; its name may tell a
        # layout conversion all the same.
        self_us = 0.0 if kernel else each.self_cpu_time_total
        if device.profiled_by == "device" and not kernel:
            self_us = each.self_device_time_total
        found[each.key] = Operator(self_s=self_us * 1e-6 / STEPS, calls=each.count / STEPS)
    return found, wall_s / STEPS
