"""How good are the verdicts? A step against itself, slowed down or not, in fresh processes.

    python studies/detection_study.py                        # under half an hour
    python studies/detection_study.py --slowdowns 0 --trials 60 --budget 30
    python studies/detection_study.py --trials 0             # replay and report what was recorded

Each trial gives the same wall-clock budget to two ways of measuring: restarts of both sides
that take turns, which perfsuite judges, and one process after another, which
pytest-benchmark's rules and a Mann-Whitney test judge. Trials that are recorded are not
repeated, so that a study which was broken off goes on where it stood.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean

import msgspec
import psutil
import torch
from recordings import DetectionStudy, read_study, write_study
from slowdown import slowed
from study_verdicts import DetectionTrial, PairTimes, perfsuite_says, verdicts
from worker_study import ArmProcess, restart

from perfsuite.devices.choice import choose_device, device_of
from perfsuite.devices.device import Clock, DeviceError
from perfsuite.devices.precision import Precision
from perfsuite.judging.gates import Outcome
from perfsuite.judging.stopping import sample
from perfsuite.records.wording import software_changes
from perfsuite.training.arm import Arm
from perfsuite.training.tutorial import tutorial_workload

BLOCK_STEPS = {"cpu": 1, "cuda": 10}
FOLDER = Path(__file__).parent.parent / "docs" / "studies"


def make_arm(seed: int, *, device: str, slowdown: float) -> Arm:
    """Return a warm-able training step that takes `slowdown` longer than it would."""
    torch_device = torch.device(device)
    workload = tutorial_workload("tutorial" if device == "cuda" else "tiny", "synthetic")
    precision = Precision.fp16 if device == "cuda" else Precision.fp32
    arm = workload.arm(precision, torch_device, seed)
    if slowdown:
        arm.step = slowed(arm, slowdown, device)
    return arm


def clock_for(device: str) -> Clock:
    """Return the clock of a kind of device."""
    return device_of(torch.device(device)).clock()


def run_trial(
    index: int, *, device: str, slowdown: float, budget_s: float, alone: bool
) -> DetectionTrial:
    """Measure both ways, the one first that was second in the trial before.

    Args:
        index: of the trial; decides seeds and order.
        device: "cpu" or "cuda".
        slowdown: of the second side, 0.05 for 5 %.
        budget_s: wall seconds for each way.
        alone: leave the other way out.
    """
    makers = [partial(make_arm, device=device, slowdown=each) for each in (0.0, slowdown)]
    make_clock = partial(clock_for, device)
    block_steps = BLOCK_STEPS[device]
    # To start a pair takes as long as 6 groups of turns. Longer turns tell more of a pair, but a
    # short budget has to start enough of them for a first look.
    quads = 6 if budget_s < 60 else 12
    started = datetime.now(UTC).isoformat(timespec="seconds")

    def observe(number: int) -> PairTimes:
        # A multiple of four more, so that the order of a restart stays what its number makes it.
        number += 1000 * index
        duet = restart(*makers, index=number, quads=quads, steps=block_steps, make_clock=make_clock)
        before_s, after_s = ([round(time_s, 7) for time_s in duet.times_s(side)] for side in "AB")
        return PairTimes(before_s=before_s, after_s=after_s)

    def clear(restarts: Sequence[PairTimes]) -> bool:
        said = perfsuite_says([each.ratio for each in restarts])
        return said is not Outcome.INCONCLUSIVE

    def take_turns() -> tuple[list[PairTimes], float]:
        start_s = time.monotonic()
        restarts = sample(observe, clear=clear, budget_s=budget_s)
        return restarts, time.monotonic() - start_s

    def one_after_another() -> list[list[float]]:
        runs = []
        for maker in makers:
            end_s = time.monotonic() + budget_s / 2
            times_s: list[float] = []
            with ArmProcess(maker, seed=index, steps=block_steps, make_clock=make_clock) as process:
                process.ready()
                while not times_s or time.monotonic() < end_s:
                    times_s.append(round(process.block().step_s, 7))
            runs.append(times_s)
        return runs

    first = one_after_another() if index % 2 and not alone else None
    restarts, restarts_s = take_turns()
    before_s, after_s = first or ([[], []] if alone else one_after_another())
    return DetectionTrial(
        slowdown=slowdown,
        budget_s=budget_s,
        restarts=restarts,
        restarts_s=round(restarts_s, 3),
        before_s=before_s,
        after_s=after_s,
        started=started,
        load_1min=round(psutil.getloadavg()[0], 2),
    )


def record(study: DetectionStudy, path: Path, arguments: argparse.Namespace) -> None:
    """Run the trials that are still missing, and keep each as soon as it is done.

    Raises:
        RuntimeError: the others were recorded with other software.
    """
    wanted = [
        (round(percent / 100, 6), number)
        for number in range(arguments.trials)
        for percent in arguments.slowdowns
    ]
    have = [(t.slowdown, t.budget_s) for t in study.trials]
    missing = [
        (slowdown, number)
        for slowdown, number in wanted
        if number >= have.count((slowdown, arguments.budget))
    ]
    changed = software_changes(study.software, choose_device(arguments.device).software())
    if missing and changed:
        raise RuntimeError(
            f"{path} was recorded with other software ({', '.join(changed)}); move it away"
        )
    took_s: list[float] = []
    for done, (slowdown, number) in enumerate(missing, start=1):
        start_s = time.monotonic()
        trial = run_trial(
            number,
            device=arguments.device,
            slowdown=slowdown,
            budget_s=arguments.budget,
            alone=arguments.alone,
        )
        study.trials.append(trial)
        write_study(path, study)
        took_s.append(time.monotonic() - start_s)
        said = verdicts(trial)
        left_s = fmean(took_s) * (len(missing) - done)
        print(
            f"{done}/{len(missing)} +{slowdown:.0%} {arguments.budget:g} s: "
            + ", ".join(f"{rule} {outcome}" for rule, outcome in said.items())
            + f" ({len(trial.restarts)} restarts; {left_s / 60:.0f} min to go)",
            flush=True,
        )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--slowdowns", type=float, nargs="+", default=[0, 1, 2, 3, 5, 10], metavar="PERCENT")
    add("--trials", type=int, default=4, help="of each slowdown (default: %(default)s)")
    add("--budget", type=float, default=30.0, metavar="SECONDS", help="of each way of measuring")
    add("--alone", action="store_true", help="leave the other rules out, in half the time")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--folder", type=Path, default=FOLDER, help="of recordings and report")
    arguments = parser.parse_args(argv)
    if not 30 <= arguments.budget < float("inf"):
        parser.error(f"--budget {arguments.budget:g}: at least 30 s, for nine pairs of processes")
    if not all(0 <= percent <= 1000 for percent in arguments.slowdowns):
        parser.error("--slowdowns: from 0 to 1000 %")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Record what is missing, then report; return an exit code."""
    arguments = _parse(argv)
    try:
        device = choose_device(arguments.device)
    except DeviceError as error:
        print(f"detection: {error}", file=sys.stderr)
        return 1
    where = device.hardware()
    path = arguments.folder / f"detection-{where.key}.json"
    try:
        study = read_study(path) or DetectionStudy(
            hardware=where.name, count=where.count, software=device.software(), trials=[]
        )
    except (OSError, msgspec.DecodeError) as error:
        print(f"detection: {path}: cannot be read: {error}; move it away", file=sys.stderr)
        return 1
    try:
        record(study, path, arguments)
    except RuntimeError as error:
        print(f"detection: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\ndetection: {len(study.trials)} trials are kept in {path}; the same command goes"
            " on from there",
            file=sys.stderr,
        )
        return 130
    # Late: every process of an arm imports this file, and has no use for what draws.
    from study_pages import write_report

    for written in write_report(study, path):
        print(f"wrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
