"""Words for a reader: names of benchmarks and gates, quantities, versions that changed."""

import signal
from collections.abc import Mapping
from typing import Any

from perfsuite.judging.thresholds import SIMULATED_KEY


def short_name(key: str) -> str:
    """Return a benchmark's name as it is shown: without its file, and without ``test_``."""
    name, bracket, parameters = key.partition("[")  # which may hold colons themselves
    return name.rpartition("::")[2].removeprefix("test_") + bracket + parameters


def gate_name(key: str, gate: str) -> str:
    """Return a benchmark's name as it is shown, and the gate's where that says more."""
    benchmark = short_name(key)
    gate = gate.removeprefix("against ")
    return benchmark if benchmark.startswith(gate) else f"{benchmark} {gate}"


def quantity(value: float, unit: str) -> str:
    """Return a figure with its unit, ready to read."""
    if unit == "B":
        return f"{value:,.0f} B"
    if unit == "s" and value < 1:
        return f"{value * 1e3:.4g} ms"
    return f"{value:.4g} {unit}".rstrip()


def ending(code: int) -> str:
    """Return how a process ended, by its exit code, or minus the signal that ended it."""
    if code >= 0:
        return f"exit code {code}"
    hint = ", as a process does that takes more memory than there is" * (code == -signal.SIGKILL)
    return f"{signal.Signals(-code).name}{hint}"


def counted(number: int, noun: str) -> str:
    """Return a number of things, in the plural where they are not one."""
    return f"{number} {noun}{'s' * (number != 1)}"


def software_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two sets of versions, a line each."""
    return [
        f"{name} {then.get(name)} -> {now.get(name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def simulated_note(hardware: str) -> list[str]:
    """Return a line that says of a hardware's key that nothing is measured there, if it is so."""
    simulated = hardware.startswith(SIMULATED_KEY)
    return ["SIMULATED: no figure here was measured; the device is made up"] * simulated
