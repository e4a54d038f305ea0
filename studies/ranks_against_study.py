"""How good is --perf-against with two ranks? A tree against itself, and against a slower step.

    python studies/ranks_against_study.py                # 10 sessions, 10 planted: over an hour
    python studies/ranks_against_study.py --sessions 0 --planted 0    # report what was recorded

The ranks train an eighth of the tutorial's network on noise, with DDP, on this machine's CPU. What
is recorded is not repeated. Give it the machine to itself.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
from comparison_study import FOLDER, ComparisonStudy, record, run_session, table, told
from recordings import write_whole

from perfsuite.devices.choice import choose_device

RANKS, SHARE = 2, 0.4
SUITE = {
    "thresholds.toml": "",
    "conftest.py": """
import torch
from torch.nn.parallel import DistributedDataParallel

import perfsuite
from perfsuite.training.cfg import scale_width


@perfsuite.workload(name="an eighth of the tutorial's, with DDP", data="noise", block_steps=2)
def workload(precision, device, seed):
    small = perfsuite.build_model(scale_width(perfsuite.TUTORIAL_CFG, 8)).to(device)
    model = DistributedDataParallel(small)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    step = perfsuite.TrainStep(model, optimizer, precision=precision)
    noise = torch.Generator().manual_seed(seed)
    batch = torch.randn(16, 1, 28, 28, generator=noise), torch.arange(16) % 10
    state = [model, optimizer, step.scaler]
    return perfsuite.Training(step=step, batches=[batch], state=state)
""",
    "test_ranks.py": "from perfsuite.benchmarks.step_time import test_step_time\n",
}


def add_suite(tree: Path) -> None:
    """Write the suite into a clone, in a folder of its own."""
    folder = tree / "ranked"
    folder.mkdir()
    for name, text in SUITE.items():
        (folder / name).write_text(text, encoding="utf-8")


def page(study: ComparisonStudy) -> str:
    """Return the study as Markdown."""
    lines = [
        "# How good is `--perf-against` with ranks?",
        "",
        told(study, "ranks_against_study.py"),
        "",
        f"Each side of a session is {RANKS} ranks on one CPU, which train with DDP over gloo. A"
        " fresh clone is compared with its own HEAD: as it is, or with a wait planted behind every"
        " timed step of every rank, of a share of the time that the step took. With nothing planted"
        " every FASTER and SLOWER is a false alarm.",
        "",
        *table(study),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Record what is missing, then write the page; return an exit code."""
    parser = argparse.ArgumentParser(description="Comparisons of ranks on this machine.")
    add = parser.add_argument
    add("--sessions", type=int, default=10, help="with nothing planted (default: %(default)s)")
    add("--planted", type=int, default=10, help=f"slower by {SHARE:.0%} (default: %(default)s)")
    add("--budget", type=float, default=120.0, metavar="SECONDS", help="of each benchmark")
    add("--folder", type=Path, default=FOLDER, help="of recordings and page")
    given = parser.parse_args(argv)
    device = choose_device("cpu")
    where, versions = device.hardware().of_ranks(1, RANKS), device.software()
    path = given.folder / f"ranks-against-{where.key}.json"
    study = ComparisonStudy(hardware=where.name, count=where.count, software=versions, sessions=[])
    if path.exists():
        study = msgspec.json.decode(path.read_bytes(), type=ComparisonStudy)
    options = ["--perf-device=cpu", f"--perf-ranks={RANKS}", f"--perf-budget={given.budget}"]
    asked = ["ranked", "-k", "fp32", *options]
    plan = [(0.0, asked)] * given.sessions + [(SHARE, asked)] * given.planted
    try:
        record(study, path, plan, versions, partial(run_session, prepare=add_suite))
        if not study.sessions:
            raise RuntimeError("nothing was recorded")
    except RuntimeError as error:
        print(f"ranks-against: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nranks-against: what is recorded is kept; the same command goes on")
        return 130
    write_whole(path.with_suffix(".md"), page(study).encode())
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
