"""How good is a nightly gate on a real machine? Sessions of their own, held against promoted runs.

    python studies/live_nights_study.py       # 20 nights, and 10 of each planted slowdown
    python studies/live_nights_study.py --nights 0 --planted 0    # report what was recorded

Every other unchanged night has a busy loop beside it, on one core. What is recorded is not
repeated. Give it the machine to itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from planted import clone, plant, session_in, unplant
from recordings import write_whole
from scipy.stats import binomtest

from perfsuite.devices.choice import choose_device
from perfsuite.judging.confirmation import compare_gate, environment_gate

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
BENCHMARK, PROMOTED = "benchmarks/test_step_time.py::test_step_time[fp32]", 3
SLOWDOWNS = (0.15, 0.30)
FIGURE = "step_s"


class LiveNight(msgspec.Struct, frozen=True, kw_only=True):
    """One night: what was said of each step time."""

    planted: float
    busy: bool
    code: int  # pytest's own
    words: dict[str, str]  # by benchmark
    environment: list[str]  # benchmarks that were found to be slower with the same code
    suspected: dict[str, str]  # what the promoted runs alone said, where that was not green
    restarts: int
    took_s: float
    confirming_s: float


class LiveNights(msgspec.Struct, kw_only=True):
    """All nights of one machine."""

    hardware: str
    count: int
    software: dict[str, Any]
    nights: list[LiveNight]


@contextmanager
def busy_loop(wanted: bool) -> Iterator[None]:
    """Keep one core busy, if that is wanted."""
    if not wanted:
        yield
        return
    # It ends with this process, however that ends.
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as loop:
        try:
            yield
        finally:
            loop.kill()


def promoted_clone(home: Path, device: str) -> Path:
    """Return a clone with promoted runs of its own code."""
    tree = clone(home / "tree")
    runs = [home / f"promoted{n}.json" for n in range(PROMOTED)]
    for run in runs:
        session_in(tree, [BENCHMARK, f"--perf-device={device}", f"--benchmark-json={run}"])
    command = [sys.executable, "-m", "perfsuite", "promote", *map(str, runs)]
    subprocess.run(command, cwd=tree, check=True)
    return tree


def night(tree: Path, path: Path, planted: float, device: str, *, busy: bool) -> LiveNight:
    """Run one night in a clone, and keep its run at a path."""
    arguments = ["--benchmark-compare", f"--perf-history={path.parent}"]
    start_s = time.monotonic()
    with busy_loop(busy):
        done = session_in(
            tree, [BENCHMARK, *arguments, f"--perf-device={device}", f"--benchmark-json={path}"]
        )
    took_s = time.monotonic() - start_s
    if not path.exists():
        raise RuntimeError(f"no run was saved:\n{done.stdout}")
    words, environment, suspected = {}, [], {}
    restarts, confirming_s = 0, 0.0
    for each in json.loads(path.read_bytes())["benchmarks"]:
        record = each["extra_info"]["perfsuite"]
        said = {verdict["gate"]: verdict for verdict in record["verdicts"]}
        verdict = said[compare_gate(FIGURE)]
        words[each["name"]] = verdict["word"] or verdict["outcome"]
        environment += [each["name"]] * (environment_gate(FIGURE) in said)
        if (confirmation := record["confirmation"]) is not None:
            suspected[each["name"]] = confirmation["suspected"][0]["outcome"]
            restarts += len(confirmation["turns"].get("restarts", ()))
            confirming_s += confirmation["took_s"]
    return LiveNight(
        planted=planted,
        busy=busy,
        code=done.returncode,
        words=words,
        environment=environment,
        suspected=suspected,
        restarts=restarts,
        took_s=round(took_s, 1),
        confirming_s=round(confirming_s, 1),
    )


def page(study: LiveNights) -> str:
    """Return the study as Markdown."""
    lines = [
        "# How good is a nightly gate, live?",
        "",
        f"{len(study.nights)} nights on {study.count} x {study.hardware}, torch"
        f" {study.software['torch']}, Python {study.software['python']}; {PROMOTED} promoted runs,"
        " the CPU's margin of 25 %. Written by `python studies/live_nights_study.py`; intervals are"
        " Wilson's, at 95 %.",
        "",
        f"A night is a session of `{BENCHMARK}` with `--benchmark-compare`, in a fresh process."
        " *Busy*: a loop kept one of the cores busy beside it. *Not green* is what no verdict"
        " cleared; pytest *failed* where its exit code was not 0, which INCONCLUSIVE alone does not"
        ' make it on a CPU (`warn = ["compare"]`).',
        "",
        "| planted | nights | figures | said | suspected | not green | | pytest failed |"
        " a night takes | pairs |",
        "| ---: | --- | ---: | --- | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for planted in (0.0, *SLOWDOWNS):
        for busy in (False, True):
            nights = [n for n in study.nights if (n.planted, n.busy) == (planted, busy)]
            if not nights:
                continue
            words = Counter(word for each in nights for word in each.words.values())
            words["ENVIRONMENT"] = sum(len(each.environment) for each in nights)
            figures = sum(len(each.words) for each in nights)
            red = sum(n for word, n in words.items() if word in ("SLOWER", "FAIL", "INCONCLUSIVE"))
            wilson = binomtest(red, figures).proportion_ci(method="wilson")
            took = [each.took_s for each in nights]
            said = ", ".join(f"{n} {word}" for word, n in words.most_common() if n)
            lines.append(
                f"| {planted:.0%} | {len(nights)}{' busy' * busy} | {figures} | {said} |"
                f" {sum(len(each.suspected) for each in nights)} | {red} |"
                f" [{wilson.low:.0%}, {wilson.high:.0%}] |"
                f" {sum(each.code != 0 for each in nights)} |"
                f" {min(took):.0f} to {max(took):.0f} s, median {median(took):.0f} |"
                f" {sum(each.restarts for each in nights)} |"
            )
    clear = [n.took_s for n in study.nights if not n.suspected]
    confirmed = [n.took_s for n in study.nights if n.suspected]
    lines += [
        "",
        f"A night in which nothing was suspected took {median(clear or [0]):.0f} s (median of"
        f" {len(clear)}), one that confirmed something {median(confirmed or [0]):.0f} s (of"
        f" {len(confirmed)}).",
    ]
    return "\n".join([*lines, ""])


def record(study: LiveNights, path: Path, given: argparse.Namespace) -> None:
    """Run the nights that are still missing, and keep each as soon as it is done."""
    plan = [(0.0, n % 2 == 1) for n in range(given.nights)]
    plan += [(share, False) for share in SLOWDOWNS for _ in range(given.planted)]
    have = Counter((each.planted, each.busy) for each in study.nights)
    with tempfile.TemporaryDirectory(prefix="nights-") as home:
        tree = None
        for planted, busy in plan:
            if have[planted, busy] > 0:
                have[planted, busy] -= 1
                continue
            tree = tree or promoted_clone(Path(home), given.device)
            runs = Path(home) / "history"
            runs.mkdir(exist_ok=True)
            if planted:
                plant(tree, planted)
            found = night(tree, runs / f"{time.time_ns()}.json", planted, given.device, busy=busy)
            unplant(tree)
            study.nights.append(found)
            write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
            print(
                f"+{planted:.0%}{' busy' * busy}: {found.words} ({found.took_s:.0f} s)", flush=True
            )


def main(argv: Sequence[str]) -> int:
    """Record what is missing, then report; return an exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=20, help="of unchanged code")
    parser.add_argument("--planted", type=int, default=10, help="of each slowdown")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args(argv)
    device = choose_device(given.device)
    where = device.hardware()
    path = FOLDER / f"nights-{where.key}.json"
    study = LiveNights(
        hardware=where.name, count=where.count, software=device.software(), nights=[]
    )
    if path.exists():
        study = msgspec.json.decode(path.read_bytes(), type=LiveNights)
    record(study, path, given)
    write_whole(path.with_suffix(".md"), page(study).rstrip().encode())
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
