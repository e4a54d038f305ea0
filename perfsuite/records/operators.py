"""Which operator a step spends its time in, and which accounts for a change: pure functions."""

import math
import re
from collections.abc import Mapping

import msgspec

TOP = 25  # operators that are kept by name; the rest is one sum
NAMED = 4
LEAST_SHARE = 0.1  # of a change; an operator that accounts for less of it is not named
# Of a timed change, on a log scale, what profiles must show of it: a profile takes a few steps,
# and what it does at each operator takes time itself.
LEAST_SHOWN, MOST_SHOWN = 0.5, 4.0

# What moves data without computing: a cast by autocast, or a change of memory format.
_CASTS = frozenset({"aten::_to_copy"})
_LAYOUTS = frozenset({"aten::clone", "aten::contiguous", "aten::_reorder"})
_PRODUCT = re.compile(r"convolution|attention|gemm|mm$")
_LAYOUT_KERNELS = ("nchwtonhwc", "nhwctonchw")


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator's share of a step."""

    self_s: float  # seconds a step in the operator itself, not in those that it calls
    calls: float  # a step


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a step's time goes; all figures are of one step."""

    clock: str  # "device" where a GPU's kernels were timed, "cpu" where the host's operators were
    operators: dict[str, Operator]  # those that take most, by name
    rest_s: float  # in all other operators
    # In none: on a CPU the host's own code and waits, on a GPU the idle time of a step that was
    # not profiled (in older runs: of the profiled one).
    outside_s: float
    casts: float  # copies to another dtype
    layouts: float  # copies to another memory format

    @property
    def outside(self) -> str:
        """What `outside_s` is called."""
        return "device idle" if self.clock == "device" else "outside of operators"

    @property
    def inside_s(self) -> float:
        """Seconds a step in all operators; on a GPU that is the sum of its kernels' times."""
        return self.rest_s + sum(each.self_s for each in self.operators.values())

    @property
    def total_s(self) -> float:
        """Seconds a step, as it was profiled."""
        return self.outside_s + self.inside_s

    @property
    def compared(self) -> dict[str, Operator]:
        """What a change is laid on: operators, and on a CPU the time outside of them.

        A GPU's idle time follows from its kernels and from the host, and is told by itself.
        """
        if self.clock == "device":
            return self.operators
        return {**self.operators, self.outside: Operator(self_s=self.outside_s, calls=1.0)}

    @property
    def compared_s(self) -> float:
        """The seconds a step of which changes are told."""
        return self.inside_s if self.clock == "device" else self.total_s


def profile_of(found: Mapping[str, Operator], *, step_s: float, clock: str) -> Profile:
    """Return a profile: the largest operators by name, the rest summed.

    `step_s` is by the wall clock of the profiled step on a CPU, and that of another one on a GPU.
    """
    ranked = sorted(found.items(), key=lambda item: -item[1].self_s)
    return Profile(
        clock=clock,
        operators=dict(ranked[:TOP]),
        rest_s=sum(each.self_s for _, each in ranked[TOP:]),
        outside_s=max(0.0, step_s - sum(each.self_s for each in found.values())),
        casts=sum(each.calls for name, each in found.items() if name in _CASTS),
        layouts=sum(each.calls for name, each in found.items() if _lays_out(name)),
    )


def _lays_out(name: str) -> bool:
    return name in _LAYOUTS or any(kernel in name.lower() for kernel in _LAYOUT_KERNELS)


def products_s(profile: Profile) -> float:
    """Return seconds a step in convolutions and matrix products, which do almost all FLOPs."""
    return sum(
        each.self_s for name, each in profile.operators.items() if _PRODUCT.search(name.lower())
    )


def explain(before: Profile, after: Profile, *, ratio: float | None = None) -> list[str]:
    """Return lines that say which operators account for the change of a step's time.

    None is named unless the profiles show about the change that was timed: a step, or on a GPU
    the sum of its kernels' times, is now `ratio` times longer.
    """
    if before.clock != after.clock:
        return [f"operators were timed by the {before.clock} before and the {after.clock} now"]
    change_s = after.compared_s - before.compared_s
    sides = [side.compared for side in (before, after)]
    moved = {name: (sides[0].get(name), sides[1].get(name)) for name in sides[0] | sides[1]}
    moved_s = {name: _seconds(now) - _seconds(then) for name, (then, now) in moved.items()}
    ranked = sorted(moved, key=lambda name: -moved_s[name] if change_s > 0 else moved_s[name])
    total = f"profiled: {_ms(before.compared_s)} -> {_ms(after.compared_s)} a step"
    if after.clock == "device":
        total = f"kernels: {_ms(before.compared_s)} -> {_ms(after.compared_s)} a step"
        total += f"; {after.outside}: {_ms(before.outside_s)} -> {_ms(after.outside_s)}"
    if ratio is None or _shows(before, after, ratio):
        lines = [
            f"{name}: {_moved(*moved[name])}, {share:.0%} of the change"
            for name in ranked[:NAMED]
            if change_s and (share := moved_s[name] / change_s) >= LEAST_SHARE
        ]
    else:
        lines = ["no operator is named: so short a profile does not show the change"]
    for what, then_calls, now_calls in (
        ("casts to another dtype", before.casts, after.casts),
        ("copies to another memory format", before.layouts, after.layouts),
    ):
        if now_calls > then_calls:
            lines.append(f"{what}: {then_calls:g} -> {now_calls:g} a step")
    return [total, *lines]


def _shows(before: Profile, after: Profile, ratio: float) -> bool:
    """Tell whether two profiles differ by about as much as the timings do, the same way."""
    then_s, now_s = before.compared_s, after.compared_s
    if not (then_s > 0 and now_s > 0 and ratio > 0 and ratio != 1):
        return False
    share = math.log(now_s / then_s) / math.log(ratio)
    return LEAST_SHOWN <= share <= MOST_SHOWN


def _seconds(operator: Operator | None) -> float:
    return 0.0 if operator is None else operator.self_s


def _moved(then: Operator | None, now: Operator | None) -> str:
    """Describe an operator's change; on one side it may not be among the largest."""
    if then is None or now is None:
        small = f"not among the {TOP} largest"
        return " -> ".join(small if each is None else _ms(each.self_s) for each in (then, now))
    calls = f" (called {then.calls:g} -> {now.calls:g} times)" * (then.calls != now.calls)
    return f"{_ms(then.self_s)} -> {_ms(now.self_s)}{calls}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
