"""What others read of a run: each of them in its own terms, restated from its source.

pytest-benchmark's own ``compare`` is run for real, in test_plugin_output.py.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from perfsuite.records.schema import read_run

ROOT = Path(__file__).parents[2]
RUNS = sorted(set((ROOT / "docs" / "runs").glob("*.json")) - {ROOT / "docs/runs/sabotage.json"})


def entries(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return found


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_github_action_benchmark(path: Path) -> None:
    """Tool 'pytest' of benchmark-action/github-action-benchmark v1.22.0, src/extract.ts.

    A series is named by `fullname`; its value is `stats.ops` in iterations a second, shown with
    `stats.stddev`, `stats.mean`, which it takes for seconds, and `stats.rounds`.
    """
    names = [entry["fullname"] for entry in entries(path)]
    assert all(isinstance(name, str) and name for name in names)
    assert len(set(names)) == len(names) > 0  # it fails without any, and would mix two alike
    for entry in entries(path):
        stats = entry["stats"]
        assert all(is_number(stats[name]) for name in ("ops", "stddev", "mean", "rounds"))
        assert stats["ops"] == pytest.approx(1 / stats["mean"])


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_bencher(path: Path) -> None:
    """Adapter python_pytest of bencherdev/bencher v0.6.12, adapters/python/pytest.rs.

    Both sections must be there; of a benchmark it takes `fullname`, of 1 to 1,024 bytes, and of
    `stats` mean and stddev, or median and iqr, numbers in seconds.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document.keys() >= {"machine_info", "commit_info", "benchmarks"}
    for entry in document["benchmarks"]:
        name, stats = entry["fullname"], entry["stats"]
        assert 0 < len(name.encode("utf-8")) <= 1024
        for figure in ("mean", "stddev", "median", "iqr"):
            assert is_number(stats[figure])  # a null, as of a NaN, would cost it the whole file
            assert stats[figure] >= 0


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_second_is_a_second(path: Path) -> None:
    """Both take the times for seconds; so does the figure that we judge by.

    A run of the ladder alone has rates, and no time that is judged.
    """
    run = read_run(path)
    for entry in entries(path):
        record = run.benchmarks[entry["extra_info"]["perfsuite"]["key"]]
        if "step_s" in record.metrics:
            assert record.metrics["step_s"].unit == "s"
            # Of a sustained run the whole time counts, and so the mean.
            told = "mean" if "::test_sustained[" in entry["fullname"] else "median"
            assert entry["stats"][told] == pytest.approx(record.metrics["step_s"].value)
    timed = any("step_s" in benchmark.metrics for benchmark in run.benchmarks.values())
    assert timed or path.stem.startswith("ladder-")
