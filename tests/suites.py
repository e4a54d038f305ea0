"""Suites for pytester: benchmarks that report known figures instead of measuring."""

import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_benchmark.plugin
import torch._dynamo  # noqa: F401  # see perfsuite.session.one_tree
from pytest_benchmark.utils import get_machine_id

# pytester forgets what is first imported inside a run, and the next one would import it anew.
import perfsuite.against.comparison_session
import perfsuite.against.confirming
import perfsuite.measuring.bench
import perfsuite.report.render
import perfsuite.session.one_tree
import perfsuite.training.data
import perfsuite.training.tutorial
from perfsuite.devices.cpu import Cpu
from perfsuite.records.promotion import promote

HARDWARE = Cpu().hardware().key

# One promoted run and this spread give an interval of 3.7 % on either side: the same figure
# passes, twice the figure fails, and 1.05 times the figure is inconclusive.
THRESHOLDS = """
[defaults]
warn = []
[defaults.convergence]
margin = 0.03
max_skipped = 0.02
min_scale = 1024.0
max_scale = 16777216.0
[defaults.compare]
margin = 0.05
assumed_spread = 0.01
environment = "fail"
"""

HEAD = """
import os

STEP_S = float(os.environ.get("STEP_S", "0.01"))


def measure(perf):
    perf.timed([STEP_S] * 5)
    perf.metric("step_s", STEP_S, unit="s", better="lower")

"""

# pytest-benchmark alone, with a clock that moves on by $STEP_S whenever it is read.
PLAIN = """
import itertools
import os

import pytest

STEP_S = float(os.environ.get("STEP_S", "0.01"))
READINGS = itertools.count()
pytestmark = pytest.mark.benchmark(timer=lambda: next(READINGS) * STEP_S)


def measure(benchmark):
    benchmark.pedantic(lambda: None, rounds=5)

"""


def timed(*names: str) -> str:
    """Return a file of benchmarks that report $STEP_S."""
    return HEAD + "".join(f"\ndef {name}(perf):\n    measure(perf)\n" for name in names)


def plain(*names: str) -> str:
    """Return a file of benchmarks of pytest-benchmark that measure $STEP_S."""
    return PLAIN + "".join(f"\ndef {name}(benchmark):\n    measure(benchmark)\n" for name in names)


# All that pytest looks for in the hundred and fifty distributions here, at each start of a session;
# a distribution reads its files anew whenever it is asked.
_WITH_PLUGINS = [
    SimpleNamespace(
        entry_points=each.entry_points, files=each.files, metadata=each.metadata, name=each.name
    )
    for each in importlib.metadata.distributions()
    if each.name in ("perfsuite", "pytest-benchmark", "pytest-xdist")
]
# Plugins of pytest that no suite here uses; each has dozens of names that are looked through.
_UNUSED = ("cacheprovider", "doctest", "legacypath", "nose", "pastebin", "stepwise", "unittest")

# Runs of suites that were run before, by all that they consist of.
_RECORDED: dict[object, bytes] = {}


class Suite:
    """A suite in pytester's folder."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = pytester.path
        self.pytester = pytester
        self._monkeypatch = monkeypatch
        # It starts a process each time, and no test is about the name of the CPU.
        monkeypatch.setattr(pytest_benchmark.plugin, "get_cpu_info", dict)
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(_WITH_PLUGINS))
        # Nor does any test train: a hundredth of the noise takes a fifth less time to make.
        monkeypatch.setattr(perfsuite.training.data, "_SYNTHETIC_IMAGES", 64)
        # Whatever else the machine does while the tests run; see test_repeating.
        monkeypatch.setattr(perfsuite.measuring.bench, "read_cpu_use", lambda: None)
        # Files are rewritten within a second, which is all that a .pyc tells apart.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setenv("COLUMNS", "100")  # whatever the terminal has
        self.write("thresholds.toml", THRESHOLDS)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the suite."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def remove(self, name: str) -> None:
        """Remove a file of the suite."""
        (self.folder / name).unlink()

    def step_s(self, value: float) -> None:
        """Let benchmarks report `value` from now on."""
        self._monkeypatch.setenv("STEP_S", str(value))

    def run(self, *arguments: str | Path) -> pytest.RunResult:
        """Run pytest with perfsuite, in this process."""
        return self._run("--perf-device=cpu", "--perf-data=synthetic", *arguments)

    def run_plain(self, *arguments: str | Path) -> pytest.RunResult:
        """Run pytest with pytest-benchmark and without perfsuite, in this process."""
        return self._run("-p", "no:perfsuite", *arguments)

    def _run(self, *arguments: str | Path) -> pytest.RunResult:
        with warnings.catch_warnings():
            # As in a session of its own: that warnings are errors holds for these tests only.
            warnings.resetwarnings()
            warnings.showwarning = _warn_on_stderr
            return self.pytester.runpytest_inprocess(
                *(f"-pno:{each}" for each in _UNUSED),
                *["--no-header"] * ("no:terminal" not in arguments),
                *arguments,
                no_reraise_ctrlc=True,  # a benchmark may raise KeyboardInterrupt
            )

    def record(self, *arguments: str | Path, name: str = "run.json") -> Path:
        """Run the suite, which must be green, and return its saved run."""
        path = self.folder / "runs" / name
        result = self.run(f"--benchmark-json={path}", *arguments)
        if result.ret != 0:
            pytest.fail(f"no run to go by: pytest exits with {result.ret}")
        return path

    def promote(self, *paths: Path, **options: bool) -> list[Path]:
        """Make runs the baseline."""
        return promote(paths, self.folder, **{"allow_dirty": True} | options)

    def recorded(self) -> bytes:
        """Return a run of the suite as it is; outside of git, one of the same files is run once."""
        files = [path for end in ("py", "toml", "ini") for path in self.folder.rglob(f"*.{end}")]
        sources = {path.relative_to(self.folder): path.read_text("utf-8") for path in files}
        known = (frozenset(sources.items()), os.environ.get("STEP_S"))
        if known not in _RECORDED or (self.folder / ".git").exists():
            path = self.record(name="recorded.json")
            _RECORDED[known] = path.read_bytes()
            path.unlink()
        return _RECORDED[known]

    def baseline(self) -> Path:
        """Make a run of the suite as it is the baseline; return the promoted file."""
        path = self.folder / "runs" / "baseline.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.recorded())
        (promoted,) = self.promote(path)
        path.unlink()
        return promoted

    def compare(self, *arguments: str | Path) -> pytest.RunResult:
        """Run pytest with perfsuite and --benchmark-compare, in this process."""
        return self.run(*arguments, "--benchmark-compare")

    def saved(self) -> list[Path]:
        """Return what --benchmark-save and --benchmark-autosave wrote."""
        return sorted((self.folder / ".benchmarks" / get_machine_id()).glob("*.json"))

    def git(self, *arguments: str) -> None:
        """Run git in the suite's folder."""
        who = ("-c", "user.name=tests", "-c", "user.email=tests@example.invalid")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        """Commit the suite as it is, in a repository of its own."""
        if not (self.folder / ".git").exists():
            self.write(".gitignore", ".benchmarks/\n__pycache__/\nruns/\nbaselines/\n")
            self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=suite")


def _warn_on_stderr(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)


def load(path: Path) -> Any:
    """Return a JSON file's content; NaN and Infinity, which JSON has not, are errors."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{path}: {constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def edit(path: Path, where: Sequence[str | int], value: Any) -> None:
    """Replace a value in a JSON file."""
    document = load(path)
    inner = document
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    path.write_text(json.dumps(document), encoding="utf-8")


def usage_error(result: pytest.RunResult) -> str:
    """Return the one line of a session that ends before anything is measured."""
    if result.ret != pytest.ExitCode.USAGE_ERROR:
        pytest.fail(f"pytest exits with {result.ret}, not with a usage error")
    text = result.stdout.str() + result.stderr.str()
    if "Traceback" in text or "INTERNALERROR" in text:
        pytest.fail("a traceback instead of one line")
    lines = [line for line in result.errlines if line.startswith("ERROR: ")]
    measured = [line for line in result.outlines if " passed" in line or " failed" in line]
    if len(lines) != 1 or measured:
        pytest.fail(f"not one line, before anything is measured: {lines or measured}")
    return lines[0]
