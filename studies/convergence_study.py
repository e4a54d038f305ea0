"""How good is the convergence gate? Healthy trainings and planted faults, judged again and again.

    python studies/convergence_study.py              # what is recorded is not repeated

Every trial has seeds of its own. Healthy are fp32 against itself from perturbed weights (A/A)
and mixed precision; the planted faults are those of tests/sabotage.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import torch
from recordings import write_whole
from scipy.stats import binomtest
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the planted steps are

from sabotage.environments import adam, arm_of, one_convolution, small_workload  # noqa: E402  # after their path
from sabotage.steps import (  # noqa: E402
    ClippingScaledGradients,
    ClippingUnscaledGradients,
    DoubleStep,
    HugeScale,
)

from perfsuite.devices.choice import choose_device, device_of  # noqa: E402
from perfsuite.devices.precision import Precision  # noqa: E402
from perfsuite.judging.gates import Outcome  # noqa: E402
from perfsuite.judging.thresholds import ConvergenceLimits, load_thresholds  # noqa: E402
from perfsuite.measuring.convergence import SeedPair, TrainingRun, judge_twice, train  # noqa: E402
from perfsuite.training.cfg import TUTORIAL_CFG, scale_width  # noqa: E402
from perfsuite.training.data import Digits, load_digits  # noqa: E402
from perfsuite.training.model import build_model  # noqa: E402
from perfsuite.training.step import TrainStep  # noqa: E402
from perfsuite.training.tutorial import fused_adam, tutorial_workload  # noqa: E402
from perfsuite.training.workload import Workload  # noqa: E402

SMALL = small_workload()
TINY = tutorial_workload("tiny")
BATCH_SIZE = 16  # of both


def tiny_model() -> nn.Module:
    """Return the network of the workload "tiny"."""
    return build_model(scale_width(TUTORIAL_CFG, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedCase:
    """What is trained, and whether the gate has to be red.

    Attributes:
        name: in the report.
        workload: what is trained.
        precision: of the candidate; fp32 is the A/A.
        kind: the candidate's step.
        twin: the reference's and the control's.
        faulty: whether it has to FAIL.
        trials: how many, for each of this case.
    """

    name: str
    workload: Workload
    precision: Precision
    kind: type[TrainStep] = TrainStep
    twin: type[TrainStep] = TrainStep
    faulty: bool = False
    trials: int = 50


CASES = (
    TrainedCase(name="A/A, tiny", workload=TINY, precision=Precision.fp32),
    TrainedCase(name="A/A, small", workload=SMALL, precision=Precision.fp32),
    TrainedCase(name="bf16, small", workload=SMALL, precision=Precision.bf16),
    TrainedCase(name="fp16, small", workload=SMALL, precision=Precision.fp16),
    TrainedCase(
        name="double step, small",
        workload=SMALL,
        precision=Precision.bf16,
        kind=DoubleStep,
        faulty=True,
        trials=10,
    ),
    TrainedCase(
        name="clipping without unscale, small",
        workload=SMALL,
        precision=Precision.fp16,
        kind=ClippingScaledGradients,
        twin=ClippingUnscaledGradients,
        faulty=True,
        trials=10,
    ),
    TrainedCase(
        name="scale of 2^40, small",
        workload=SMALL,
        precision=Precision.fp16,
        kind=HugeScale,
        faulty=True,
        trials=10,
    ),
)


class ConvergenceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said once: outcomes, the figure of the mean loss, and if it took two tries."""

    case: str
    outcomes: dict[str, Outcome]
    mean_loss: str
    twice: bool


class ConvergenceStudy(msgspec.Struct, kw_only=True):
    """Every trial of one machine, with one torch, held against the same thresholds."""

    hardware: str
    torch: str
    asked: ConvergenceLimits
    trials: list[ConvergenceTrial]


def pair(case: TrainedCase, digits: Digits, seed: int) -> SeedPair:
    """Train reference, candidate and control from one seed."""
    workload, device = case.workload, digits.labels.device

    def run(kind: type[TrainStep], precision: Precision, nudge: int | None = None) -> TrainingRun:
        torch.manual_seed(seed)
        made, optimizer = (tiny_model, fused_adam) if workload is TINY else (one_convolution, adam)
        model = made().to(device).train()
        arm = arm_of(kind(model, optimizer(model.parameters()), precision=precision))
        if nudge is not None:
            arm.perturb(nudge)
        batches = islice(digits.batches(BATCH_SIZE, seed), workload.convergence_steps)
        return train(arm, list(batches), device_of(device).clock())

    # On a CPU fp32 against itself would be equal to the bit, and show nothing.
    nudge = seed + 1_000_000 if case.precision is Precision.fp32 else None
    return SeedPair(
        seed=seed,
        reference=run(case.twin, Precision.fp32),
        candidate=run(case.kind, case.precision, nudge),
        control=run(case.twin, Precision.fp32, seed),
    )


def run_trial(
    case: TrainedCase, digits: Digits, number: int, asked: ConvergenceLimits
) -> ConvergenceTrial:
    """Judge once, as the benchmark does, with seeds that no other trial has."""

    def trained(seeds: Sequence[int]) -> tuple[SeedPair, ...]:
        return tuple(pair(case, digits, 1000 * number + seed) for seed in seeds)

    seeds = case.workload.convergence_seeds
    pairs, verdicts = judge_twice(trained, seeds, asked)
    outcomes: dict[str, Outcome] = {}
    for verdict in verdicts:  # the scale has two
        if outcomes.get(verdict.gate, Outcome.PASS) is Outcome.PASS:
            outcomes[verdict.gate] = verdict.outcome
    return ConvergenceTrial(
        case=case.name,
        outcomes=outcomes,
        mean_loss=verdicts[0].figure,
        twice=len(pairs) > seeds,
    )


def worst(trial: ConvergenceTrial) -> Outcome:
    """Return what the benchmark as a whole would say."""
    said = set(trial.outcomes.values())
    return next(each for each in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if each in said)


def page(study: ConvergenceStudy) -> str:
    """Return the report as Markdown."""
    lines = [
        "# How good is the convergence gate?",
        "",
        f"{len(study.trials)} trials on {study.hardware}, torch {study.torch}; 6 pairs of 40 steps"
        f" in each, equivalence within {study.asked.margin:.0%} at alpha {study.asked.alpha:g}, red"
        " ones tried once more. Intervals are Wilson's for the share of FAIL, at 95 %. Written by"
        " `python studies/convergence_study.py`.",
        "",
        "| case | has to | trials | FAIL | | INCONCLUSIVE | PASS | tried twice | by which gates |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for case in CASES:
        trials = [trial for trial in study.trials if trial.case == case.name]
        if not trials:
            continue
        counts = Counter(map(worst, trials))
        wilson = binomtest(counts[Outcome.FAIL], len(trials)).proportion_ci(method="wilson")
        gates = sorted(
            {g for t in trials for g, said in t.outcomes.items() if said is Outcome.FAIL}
        )
        lines.append(
            f"| {case.name} | {'FAIL' if case.faulty else 'PASS'} | {len(trials)}"
            f" | {counts[Outcome.FAIL]} | [{wilson.low:.1%}, {wilson.high:.1%}]"
            f" | {counts[Outcome.INCONCLUSIVE]} | {counts[Outcome.PASS]}"
            f" | {sum(trial.twice for trial in trials)} | {', '.join(gates)} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Run the trials that are still missing, then report; return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "studies")
    folder = parser.parse_args(argv).folder
    torch.set_num_threads(1)
    device = choose_device("cpu")
    where = device.hardware()
    asked = load_thresholds(ROOT / "benchmarks" / "thresholds.toml", where.key).convergence
    path = folder / f"convergence-{where.key}.json"
    fresh = ConvergenceStudy(
        hardware=str(where), torch=str(torch.__version__), asked=asked, trials=[]
    )
    try:
        study = (
            msgspec.json.decode(path.read_bytes(), type=ConvergenceStudy)
            if path.exists()
            else fresh
        )
    except (OSError, msgspec.DecodeError) as error:
        print(f"convergence: {path}: cannot be read: {error}; move it away", file=sys.stderr)
        return 1
    missing = [
        (case, number)
        for case in CASES
        for number in range(sum(t.case == case.name for t in study.trials), case.trials)
    ]
    if missing and (study.torch, study.asked) != (fresh.torch, fresh.asked):
        then = f"torch {study.torch} and {study.asked}"
        print(f"convergence: {path} was recorded with {then}; move it away", file=sys.stderr)
        return 1
    digits = load_digits("mnist5k", device.place)
    try:
        for case, number in missing:
            start_s = time.monotonic()
            trial = run_trial(case, digits, number, asked)
            study.trials.append(trial)
            write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
            took_s = time.monotonic() - start_s
            print(
                f"{case.name} {number + 1}/{case.trials}: {worst(trial)}, mean loss"
                f" {trial.mean_loss} ({took_s:.0f} s)",
                flush=True,
            )
    except KeyboardInterrupt:
        print(f"\nconvergence: {len(study.trials)} trials are kept in {path}", file=sys.stderr)
        return 130
    write_whole(path.with_suffix(".md"), page(study).rstrip().encode())
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
