"""Ten minutes with a GPU: ``make gpu-evidence``, or ``python tools/gpu_evidence.py --device cuda``.

Runs what no machine without a GPU can, the most telling first, and writes a folder below docs/runs:
figures, runs, logs, and a page that says of each prediction whether it came true. What is done is
kept there and skipped the next time; where the minutes end, the page tells of what there is.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_predictions import page, with_speedups

from perfsuite.devices.choice import NAMES, SIMULATED, choose_device
from perfsuite.records.wording import simulated_note

ROOT = Path(__file__).parents[1]
RUNS, BUDGET_S, TOTAL_S = 5, 4, 600
CUT_OFF = 124
"""The exit code of a step that the limit ended."""

Execute = Callable[[Sequence[str], Path, float], int]  # command, log and limit; the exit code


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceStep:
    """One command, and for how long it may run; what it leaves lies beside its log."""

    name: str
    command: tuple[str, ...]
    limit_s: float


def steps(device: str, folder: Path) -> list[EvidenceStep]:
    """Return all steps; whatever changes a file that git knows comes after the runs."""
    python = sys.executable

    def check(name: str, limit_s: float) -> EvidenceStep:
        out = f"--out={folder / f'figures-{name}.json'}"
        command = (python, "tools/gpu_checks.py", name, f"--device={device}", out)
        return EvidenceStep(name=name, command=command, limit_s=limit_s)

    tests = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if _wants_cuda(path)]

    def suite(number: int) -> EvidenceStep:
        command = [python, "-m", "pytest", "benchmarks", f"--perf-device={device}"]
        command += [
            f"--perf-budget={BUDGET_S}",
            f"--benchmark-json={folder / f'run-{number}.json'}",
        ]
        command += [f"--perf-report={folder / 'report'}"] * (number == 1)
        return EvidenceStep(name=f"suite-{number}", command=tuple(command), limit_s=120)

    runs = [str(folder / f"run-{number}.json") for number in range(1, RUNS + 1)]
    rows = (
        "import sys; from sabotage.__main__ import main; from sabotage.catalogue import ROWS;"
        " sys.exit(main(rows=[row for row in ROWS if row.needs_cuda]))"
    )
    detection = ("--slowdowns", "0", "5", "--trials=1", "--budget=30", "--alone")
    of_a_gpu = [
        EvidenceStep(
            name="planted-bugs",
            command=(python, "-c", f"import sys; sys.path.insert(0, 'tests'); {rows}"),
            limit_s=120,
        ),
        EvidenceStep(
            name="detection",
            command=(
                *(python, "studies/detection_study.py", *detection),
                *("--device", device, "--folder", str(folder)),
            ),
            limit_s=150,
        ),
    ]
    if device.startswith(SIMULATED):  # which has no CUDA: neither its bugs, nor its sleep
        of_a_gpu = []
    return [
        check("host_share", 60),
        check("kernels", 60),
        suite(1),
        EvidenceStep(
            name="cuda-tests",
            command=(python, "-m", "pytest", *map(str, tests), "-m", "cuda", "-q"),
            limit_s=120,
        ),
        check("sensor", 30),
        check("spread", 90),
        *(suite(number) for number in range(2, RUNS + 1)),
        EvidenceStep(
            name="promote",
            command=(python, "-m", "perfsuite", "promote", *runs, "--suite=benchmarks"),
            limit_s=20,
        ),
        *of_a_gpu,
    ]


def _wants_cuda(tests: Path) -> bool:
    """Tell whether a file of tests has any for a GPU: to import all others takes ten seconds."""
    return "mark.cuda" in tests.read_text(encoding="utf-8")


def execute(command: Sequence[str], log: Path, limit_s: float) -> int:
    """Run a command in the repository, its output in a log; return its exit code, or CUT_OFF."""
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return CUT_OFF
    return done.returncode


def gather(
    steps: Sequence[EvidenceStep],
    folder: Path,
    *,
    total_s: float = TOTAL_S,
    execute: Execute = execute,
    now: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Run the steps that are not done yet until the time is over; return a line on each.

    A step that failed is done, since that is evidence, too; one that was cut off is not.
    """
    until_s = now() + total_s
    lines = []
    for step in steps:
        mark = folder / f"{step.name}.done"
        if not mark.exists():
            left_s = min(step.limit_s, until_s - now())
            if left_s <= 0:
                lines.append(f"{step.name}: not reached")
                continue
            started_s = now()
            code = execute(step.command, folder / f"{step.name}.log", left_s)
            if code == CUT_OFF:
                lines.append(f"{step.name}: cut off after {left_s:.0f} s")
                continue
            mark.write_text(f"exit code {code} after {now() - started_s:.0f} s\n", encoding="utf-8")
        lines.append(f"{step.name}: {mark.read_text(encoding='utf-8').strip()}")
        print(lines[-1], flush=True)
    return lines


def write_page(folder: Path, about: str, done: Sequence[str]) -> Path:
    """Write evidence.json and evidence.md from what the checks left; return the page."""
    figures: dict[str, Any] = {}
    for path in sorted(folder.glob("figures-*.json")):
        with suppress(json.JSONDecodeError):  # cut off
            figures |= json.loads(path.read_text(encoding="utf-8"))
    figures = with_speedups(figures)
    told = {"about": about, "figures": figures, "done": list(done)}
    (folder / "evidence.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    written = folder / "evidence.md"
    written.write_text(page(figures, done, about), encoding="utf-8")
    return written


def main(argv: Sequence[str] | None = None) -> None:
    """Gather what there is time for, and write the page."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=NAMES, default="cuda")
    parser.add_argument("--minutes", type=float, default=TOTAL_S / 60)
    parser.add_argument("--folder", type=Path, help="to go on with one of an earlier day")
    given = parser.parse_args(argv)
    device, today = choose_device(given.device), datetime.now(UTC).date()
    hardware = device.hardware()
    folder = given.folder or ROOT / "docs" / "runs" / f"gpu-{today}-{hardware.key}"
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    torch = device.software()["torch"]
    about = ". ".join([f"{hardware}, torch {torch}, {today}", *simulated_note(hardware.key)])
    done = gather(steps(given.device, folder), folder, total_s=given.minutes * 60)
    print(f"wrote {write_page(folder, about, done)}")


if __name__ == "__main__":
    main()
