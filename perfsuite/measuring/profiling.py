"""Profiling a step with torch.profiler, outside of whatever is timed."""

from collections import Counter, defaultdict
from statistics import median
from typing import Any

import torch

from perfsuite.devices.device import Device
from perfsuite.measuring.timing import Timeable, time_block
from perfsuite.records.operators import Operator, Profile, profile_of

STEPS, REPEATS = 4, 5

# What the profiler's own averages leave out.
_LEFT_OUT = frozenset({"[memory]", "aten::is_leaf", "aten::output_nr", "aten::_version"})


def profile(arm: Timeable, device: Device, *, repeats: int = REPEATS) -> Profile:
    """Return where the time of a warm arm's step goes: medians over repeats of a few steps.

    On a GPU it is the time of the kernels that each operator launched, on a CPU the time in
    the operator itself. Profiling slows the host down: on a GPU idle time is that of steps that
    are not profiled, in between.
    """
    runs, steps_s = zip(*(_profile_once(arm, device) for _ in range(repeats)), strict=True)
    found, unseen = {}, Operator(self_s=0.0, calls=0.0)
    for name in set().union(*runs):
        seen = [run.get(name, unseen) for run in runs]
        self_s, calls = median(each.self_s for each in seen), median(each.calls for each in seen)
        found[name] = Operator(self_s=self_s, calls=calls)
    return profile_of(found, step_s=median(steps_s), clock=device.profiled_by)


def _profile_once(arm: Timeable, device: Device) -> tuple[dict[str, Operator], float]:
    """Return operators, and seconds, of a step on average over STEPS."""
    before, by_device = device.charged, device.profiled_by == "device"
    unprofiled_s = 0.0
    if by_device and before is None:
        unprofiled_s = time_block(arm, device.clock(), STEPS).step_s
    batches, clock = arm.take(STEPS), device.clock()

    def take() -> float:
        clock.start()
        with clock.taking(arm.step) as step:
            for batch in batches:
                step(batch)
        return clock.stop()[0]

    if before is not None:
        step_s, sums = take() / STEPS, _since(before, device.charged or {})
    else:
        with torch.profiler.profile(activities=device.profiler_activities()) as profiler:
            wall_s = take()
        if by_device:
            step_s, sums = unprofiled_s, _launched_by_operators(profiler)
        else:
            step_s = wall_s / STEPS
            assert profiler.profiler is not None  # it ran
            sums = in_operators(profiler.profiler.kineto_results.events())
    found = {
        name: Operator(self_s=self_s / STEPS, calls=calls / STEPS)
        for name, (self_s, calls) in sums.items()
    }
    return found, step_s


def _since(
    before: dict[str, tuple[float, int]], after: dict[str, tuple[float, int]]
) -> dict[str, tuple[float, int]]:
    told = {}
    for name, (self_s, calls) in after.items():
        then_s, then = before.get(name, (0.0, 0))
        if calls > then:
            told[name] = self_s - then_s, calls - then
    return told


def _launched_by_operators(profiler: torch.profiler.profile) -> dict[str, tuple[float, int]]:
    # A kernel's time is its operator's too, and would count twice; its name may tell a layout
    # conversion all the same.
    return {
        each.key: (
            each.self_device_time_total * 1e-6 if each.device_type.name == "CPU" else 0.0,
            each.count,
        )
        for each in profiler.key_averages()
    }


def in_operators(events: Any) -> dict[str, tuple[float, int]]:
    """Return seconds and calls by name, as `key_averages` does for a CPU, in a tenth of its time.

    It makes an object of sixty fields of each event, which takes longer than the steps.
    """
    threads = defaultdict(list)
    for each in events:
        name = each.name()
        if name not in _LEFT_OUT and not each.is_async():
            threads[each.start_thread_id()].append((each.start_ns(), -each.end_ns(), name))
    self_ns: Counter[str] = Counter()
    callees: list[tuple[str, list[str]]] = []  # of each call, those that it made itself
    for thread in threads.values():
        within: list[tuple[int, str, list[str]]] = []  # calls that have not ended
        for start_ns, minus_end_ns, name in sorted(thread):
            end_ns = -minus_end_ns
            while within and (start_ns >= within[-1][0] or end_ns > within[-1][0]):
                within.pop()
            if within:
                _, caller, called = within[-1]
                called.append(name)
                self_ns[caller] -= end_ns - start_ns
            self_ns[name] += end_ns - start_ns
            callees.append((name, []))
            within.append((end_ns, *callees[-1]))
    # An operator that does nothing but call another overload of itself is one call.
    calls = Counter(name for name, called in callees if called != [name])
    return {name: (self_ns[name] * 1e-9, number) for name, number in calls.items()}
