"""The options of perfsuite, as ``pytest --help`` shows them."""

from pathlib import Path

import pytest

from perfsuite.devices.choice import NAMES
from perfsuite.devices.torchrun import RankError, seat


def add_options(parser: pytest.Parser) -> None:
    """Add the options of perfsuite."""
    group = parser.getgroup("perfsuite", "performance of mixed-precision training")
    group.addoption(
        "--perf-device",
        choices=NAMES,
        default="auto",
        help="device to measure; auto takes an accelerator where there is one, and simulated:NAME"
        " only shows what a session on such a card looks like (default: %(default)s)",
    )
    group.addoption(
        "--perf-workload",
        choices=("tutorial", "tiny"),
        help="network to train: tutorial (default on CUDA), or tiny, which has an eighth of its"
        " width (default on CPU)",
    )
    group.addoption(
        "--perf-data",
        choices=("mnist5k", "mnist", "synthetic"),
        default="mnist5k",
        help="training images: mnist5k (5,000 MNIST digits, no download), mnist (all 60,000,"
        " downloaded once), or synthetic (noise, for timing only) (default: %(default)s)",
    )
    group.addoption(
        "--perf-parallel",
        choices=("ddp", "fsdp2"),
        help="how ranks that torchrun started train the tutorial together: ddp copies the weights"
        " (default), fsdp2 shards them",
    )
    group.addoption(
        "--perf-budget",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="seconds after which two arms, or two trees, take no more turns although it is still"
        " INCONCLUSIVE; nine rounds are always measured (default: %(default)g)",
    )
    group.addoption(
        "--perf-epochs",
        type=_number,
        metavar="N",
        help="train the tutorial for so many whole epochs, and judge it by digits that are held"
        " out; broken off, it goes on where it was (default: two short epochs)",
    )
    group.addoption(
        "--perf-report",
        type=Path,
        metavar="DIR",
        help="write a report with charts (HTML and Markdown) and the run (JSON) to this folder",
    )
    group.addoption(
        "--perf-against",
        metavar="REF",
        help="compare the working tree with this commit, branch or tag; both are measured in"
        " turns, in fresh processes",
    )
    group.addoption(
        "--perf-against-python",
        metavar="PATH",
        help="Python interpreter for the code before the change: to compare two environments, or"
        " with --perf-against",
    )
    group.addoption(
        "--perf-ranks",
        type=_ranks,
        metavar="N",
        help="run the session in so many processes on this machine, which torchrun starts and which"
        " train together",
    )
    group.addoption(
        "--perf-history",
        type=Path,
        metavar="DIR",
        help="folder with past runs, from which --benchmark-compare learns how figures spread from"
        " night to night",
    )
    group.addoption(
        "--perf-confirm-python",
        metavar="PATH",
        help="Python interpreter for the promoted commit, where --benchmark-compare confirms what"
        " it suspects; auto installs the versions that the baseline recorded, with uv",
    )


def ranks_of(config: pytest.Config) -> int:
    """Return how many ranks a benchmark has: those that are asked for, or that torchrun started."""
    try:
        return config.option.perf_ranks or seat().ranks
    except RankError as error:
        raise pytest.UsageError(str(error)) from None


def parallel_asked(config: pytest.Config) -> str | None:
    """Return how ranks are to train together, None where it is not said.

    Raises:
        UsageError: it is said, and there is one rank.
    """
    how: str | None = config.option.perf_parallel
    if how is not None and ranks_of(config) == 1:
        raise pytest.UsageError(
            f"--perf-parallel {how}: there is one rank; start several (--perf-ranks, or torchrun)"
        )
    return how


def _seconds(text: str) -> float:
    """Return a finite and positive number; argparse reports the ValueError for any other."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _number(text: str) -> int:
    """Return a whole number above zero; argparse reports the ValueError for anything else."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _ranks(text: str) -> int:
    return _number(text)


_ranks.__name__ = "number of ranks"
_number.__name__ = "number of epochs"
_seconds.__name__ = "number of seconds"  # what argparse calls it: "invalid number of seconds value"
