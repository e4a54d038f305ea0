"""Can the host's side of a step be counted? Python's calls, instructions by three counters.

    python studies/host_work_study.py      # minutes, most of them in valgrind; writes docs/studies

Each count is taken of several steps, Python's calls in several fresh processes. Then harmless
changes are made to the step, by which the tests of the ledger hold that no count of it changes.
"""

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import torch
from recordings import write_whole
from torch.utils.benchmark import Timer

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "studies"
sys.path.insert(0, str(ROOT / "tests" / "measuring"))

from ledger_cases import FREE, SOURCE  # noqa: E402  # the tests' own cases, found by that path

PROCESSES, STEPS, WARM_UP = 2, 5, 3
UNCOUNTED = 2**64 - 1
"""What torch's own counter may return where it cannot count, without an error."""
# A small step, or valgrind would take an hour.
SETUP = """
import torch
from torch import nn
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
batch = torch.ones(4, 8)
def step():
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
for _ in range(3):
    step()
"""
_INSTRUCTIONS, _USER_ONLY = 1, 1 | 1 << 5 | 1 << 6  # from linux/perf_event.h
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}


class HostCounter(msgspec.Struct, frozen=True, kw_only=True):
    """What one way to count said.

    Attributes:
        name: of the way.
        counts: a step, of all processes and repeats.
        cost_s: processor seconds for all of them.
        failed: why it could not count.
    """

    name: str
    counts: list[float] = []
    cost_s: float = 0.0
    failed: str = ""

    @property
    def spread(self) -> float:
        """The largest count over the smallest, less one."""
        return max(self.counts) / min(self.counts) - 1


class HostWork(msgspec.Struct, frozen=True, kw_only=True):
    """All that was counted, and by what share harmless changes moved Python's calls."""

    torch: str
    python: str
    counters: list[HostCounter]
    harmless: dict[str, float]


def made(source: str) -> Callable[[], object]:
    """Return a step, warmed up, of a program given as its text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program.py"
        path.write_text(source)
        spec = util.spec_from_file_location("program", path)
        assert spec is not None
        assert spec.loader is not None
        program = util.module_from_spec(spec)
        spec.loader.exec_module(program)
    step, _ = program.make()
    batch = torch.randn(4, 3, 16, 16), torch.arange(4)
    for _ in range(WARM_UP):
        step(batch)
    return lambda: step(batch)


def python_calls(step: Callable[[], object]) -> int:
    """Count the functions that a step calls, those in C included."""
    counted = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    gc.disable()  # or it would call back now and then
    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted


def by_python() -> HostCounter:
    """Count calls in fresh processes."""
    started_s = os.times()
    counts: list[float] = []
    for _ in range(PROCESSES):
        command = [sys.executable, __file__, "--calls"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        counts += msgspec.json.decode(done.stdout.splitlines()[-1], type=list[int])
    return HostCounter(name="Python's calls", counts=counts, cost_s=_spent_since(started_s))


def by_callgrind() -> HostCounter:
    """Count instructions with valgrind, by way of torch: repeats, one after the other."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started_s, name = os.times(), "instructions, by callgrind"
    timer = Timer("step()", setup=SETUP)
    try:
        found = timer.collect_callgrind(
            number=STEPS, repeats=PROCESSES, collect_baseline=False, retain_out_file=False
        )
    except (OSError, RuntimeError) as error:
        return HostCounter(name=name, failed=str(error).strip().partition("\n")[0])
    counts = [each.counts(denoise=True) / STEPS for each in found]
    return HostCounter(name=name, counts=counts, cost_s=_spent_since(started_s))


class _PerfEvent(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("of_samples", ctypes.c_uint64 * 3),
        ("flags", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 9),
    )


def by_processor(step: Callable[[], object]) -> HostCounter:
    """Count instructions with the processor's own counter, by perf_event_open(2)."""
    name = "instructions, by the processor"
    number = _PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        return HostCounter(name=name, failed="this machine's number of the call is not known")
    event = _PerfEvent(config=_INSTRUCTIONS, flags=_USER_ONLY)
    event.size = ctypes.sizeof(event)
    system = ctypes.CDLL(None, use_errno=True)
    descriptor = system.syscall(number, ctypes.byref(event), 0, -1, -1, 0)
    if descriptor < 0:
        why = os.strerror(ctypes.get_errno())
        return HostCounter(name=name, failed=f"perf_event_open: {why}")
    counts = []
    enable, disable, reset = 0x2400, 0x2401, 0x2403
    for _ in range(STEPS):
        system.ioctl(descriptor, reset, 0)
        system.ioctl(descriptor, enable, 0)
        step()
        system.ioctl(descriptor, disable, 0)
        counts.append(float(int.from_bytes(os.read(descriptor, 8), "little")))
    return HostCounter(name=name, counts=counts)


def by_torch(step: Callable[[], object]) -> HostCounter:
    """Count instructions with torch's profiler, which fails in silence."""
    name = "instructions, by torch's profiler"
    asked = torch._C._profiler._ExperimentalConfig(performance_events=["instructions"])
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], experimental_config=asked
    ) as profiled:
        step()
    counted = [
        count
        for event in profiled.profiler.kineto_results.events()
        for count in getattr(event, "perf_event_counters", list)()
    ]
    if not counted:
        return HostCounter(name=name, failed="it returns no count, and raises nothing")
    if UNCOUNTED in counted:
        return HostCounter(name=name, failed=f"it returns {UNCOUNTED:,}, and raises nothing")
    return HostCounter(name=name, counts=[float(max(counted))])


def _spent_since(before: os.times_result) -> float:
    now = os.times()
    return sum(now[:4]) - sum(before[:4])


def harmless() -> dict[str, float]:
    """Return by what share each harmless change moves the calls of a step."""
    first = python_calls(made(SOURCE))
    return {
        name: python_calls(made(SOURCE.replace(old, new))) / first - 1
        for name, (old, new) in FREE.items()
    }


def page(found: HostWork) -> str:
    """Return the page that shows what was found."""
    lines = [
        "# Counting the host's work",
        "",
        "Could a gate hold what the host does in a step, beside the operators that the",
        "[ledger](../ledger.md) counts? Counted by `studies/host_work_study.py`, with Python",
        f"{found.python} and torch {found.torch}; Python's calls are of the step in the ledger's",
        "own tests, instructions of a smaller one.",
        "",
        "| counted | counts | a step | spread | processor time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in found.counters:
        if each.failed:
            lines.append(f"| {each.name} | none: {each.failed} | | | |")
        else:
            middle = sorted(each.counts)[len(each.counts) // 2]
            lines.append(
                f"| {each.name} | {len(each.counts)} | {middle:,.0f} | {each.spread:.2%} |"
                f" {each.cost_s:,.0f} s |"
            )
    moved = {name: share for name, share in found.harmless.items() if abs(share) > 0.01}
    lines += [
        "",
        f"Of {len(found.harmless)} harmless changes, {len(moved)} move Python's calls by more than",
        "1 %, though no operator is another one:",
        "",
        "| change | Python's calls |",
        "| --- | --- |",
        *(
            f"| {name} | {share:+.1%} |"
            for name, share in sorted(found.harmless.items(), key=lambda each: -abs(each[1]))
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Count, and write the record and its page; with --calls count Python's alone."""
    torch.set_num_threads(1)
    if "--calls" in sys.argv:
        step = made(SOURCE)
        print(msgspec.json.encode([python_calls(step) for _ in range(STEPS)]).decode())
        return
    names: dict[str, Callable[[], object]] = {}
    exec(SETUP, names)  # as callgrind's process does
    small = names["step"]
    found = HostWork(
        torch=str(torch.__version__),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        counters=[by_python(), by_processor(small), by_torch(small), by_callgrind()],
        harmless=harmless(),
    )
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    write_whole(FOLDER / "host-work.json", encoded)
    write_whole(FOLDER / "host-work.md", page(found).encode())


if __name__ == "__main__":
    main()
