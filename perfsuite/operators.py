"""Which operator a step spends its time in, and which accounts for a change: pure functions."""

from collections.abc import Mapping

import msgspec

__all__ = ["Operator", "Profile", "explain", "profile_of"]

TOP = 25
"""Operators that are kept by name; the rest is one sum."""
NAMED = 4
LEAST_SHARE = 0.1
"""Of a change; an operator that accounts for less of it is not worth a line."""

# Whatever moves data without computing: a cast of autocast's, or a tensor laid out anew.
_CASTS = frozenset({"aten::_to_copy"})
_LAYOUTS = frozenset({"aten::clone", "aten::contiguous", "aten::_reorder"})
_LAYOUT_KERNELS = ("nchwtonhwc", "nhwctonchw")


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator's share of a step.

    Attributes:
        self_s: seconds a step in the operator itself, not in those that it calls.
        calls: a step.
    """

    self_s: float
    calls: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a step's time goes.

    Attributes:
        clock: "device" where a GPU's kernels were timed, "cpu" where the host's operators were.
        operators: those that take most, by name.
        rest_s: seconds a step in all others.
        casts: copies to another dtype, a step.
        layouts: copies to another memory format, a step.
    """

    clock: str
    operators: dict[str, Operator]
    rest_s: float
    casts: float
    layouts: float

    @property
    def total_s(self) -> float:
        """Seconds a step in all operators."""
        return self.rest_s + sum(each.self_s for each in self.operators.values())


def profile_of(found: Mapping[str, Operator], *, clock: str) -> Profile:
    """Return a profile from every operator that was seen: the largest by name, the rest summed."""
    ranked = sorted(found.items(), key=lambda item: -item[1].self_s)
    return Profile(
        clock=clock,
        operators=dict(ranked[:TOP]),
        rest_s=sum(each.self_s for _, each in ranked[TOP:]),
        casts=sum(each.calls for name, each in found.items() if name in _CASTS),
        layouts=sum(each.calls for name, each in found.items() if _lays_out(name)),
    )


def _lays_out(name: str) -> bool:
    return name in _LAYOUTS or any(kernel in name.lower() for kernel in _LAYOUT_KERNELS)


def explain(before: Profile, after: Profile) -> list[str]:
    """Return lines that say which operators account for the change of a step's time.

    An operator that is not among the largest of one side may have taken up to as much there as
    the least of them; it counts as absent, which the line's own figures show.
    """
    if before.clock != after.clock:
        return [f"operators were timed by the {before.clock} before and the {after.clock} now"]
    change_s = after.total_s - before.total_s
    absent = Operator(self_s=0.0, calls=0.0)
    moved = {
        name: (before.operators.get(name, absent), after.operators.get(name, absent))
        for name in before.operators.keys() | after.operators.keys()
    }
    ranked = sorted(
        moved.items(), key=lambda item: -(item[1][1].self_s - item[1][0].self_s) * _sign(change_s)
    )
    lines = [
        f"{name}: {_ms(then.self_s)} -> {_ms(now.self_s)} a step, {share:.0%} of the change"
        + _calls(then, now)
        for name, (then, now) in ranked[:NAMED]
        if change_s and (share := (now.self_s - then.self_s) / change_s) >= LEAST_SHARE
    ]
    for what, then_calls, now_calls in (
        ("casts to another dtype", before.casts, after.casts),
        ("copies to another memory format", before.layouts, after.layouts),
    ):
        if now_calls > then_calls:
            lines.append(f"{what}: {then_calls:g} -> {now_calls:g} a step")
    total = f"all operators: {_ms(before.total_s)} -> {_ms(after.total_s)} a step"
    return [f"{total}, by the {after.clock}'s clock", *lines]


def _sign(value: float) -> int:
    return -1 if value < 0 else 1


def _calls(then: Operator, now: Operator) -> str:
    return "" if then.calls == now.calls else f" (called {then.calls:g} -> {now.calls:g} times)"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
