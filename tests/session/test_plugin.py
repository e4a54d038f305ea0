"""The plugin: its options, what it leaves alone, and what it refuses before measuring."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torchvision
from suites import HEAD, THRESHOLDS, Suite, load, timed, usage_error

from perfsuite.devices.choice import NAMES

OPTIONS = {
    "--perf-device": NAMES,
    "--perf-workload": ("tutorial", "tiny"),
    "--perf-data": ("mnist5k", "mnist", "synthetic"),
    "--perf-parallel": ("ddp", "fsdp2"),
}
HEAVY = ("torch", "scipy", "numpy", "psutil", "perfsuite.session.one_tree")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_the_options_and_their_choices(suite: Suite) -> None:
    text = suite.run("--help").stdout.str()
    described = dict(re.findall(r"^ +(--perf-[a-z-]+)=\{([a-z0-9,:-]+)\}", text, re.MULTILINE))
    assert {name: tuple(choices.split(",")) for name, choices in described.items()} == OPTIONS
    assert set(re.findall(r"--perf-[a-z-]+", text)) == OPTIONS.keys() | {
        "--perf-against",
        "--perf-against-python",
        "--perf-budget",
        "--perf-confirm-python",
        "--perf-epochs",
        "--perf-history",
        "--perf-ranks",
        "--perf-report",
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_a_value_that_is_not_a_choice_is_refused(suite: Suite, option: str) -> None:
    result = suite.run(f"{option}=fastest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{option}: invalid choice: 'fastest'" in result.stderr.str()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "long"])
def test_a_budget_that_is_not_a_number_of_seconds_is_refused(suite: Suite, seconds: str) -> None:
    result = suite.run(f"--perf-budget={seconds}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--perf-budget: invalid number of seconds value: '{seconds}'" in result.stderr.str()


@pytest.mark.parametrize("epochs", ["0", "-1", "1.5", "many"])
def test_epochs_that_are_no_number_are_refused(suite: Suite, epochs: str) -> None:
    result = suite.run(f"--perf-epochs={epochs}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--perf-epochs: invalid number of epochs value: '{epochs}'" in result.stderr.str()


@pytest.mark.slow
def test_the_plugin_imports_nothing_heavy() -> None:
    code = f"import sys, perfsuite.plugin; sys.exit(str({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.slow
def test_a_session_without_our_benchmarks_imports_nothing_heavy(suite: Suite) -> None:
    suite.write(
        "conftest.py",
        "import sys\n\n\ndef pytest_unconfigure():\n"
        f"    print('heavy:', sorted({set(HEAVY)} & sys.modules.keys()))\n",
    )
    suite.write(
        "test_plain.py",
        "def test_code():\n    pass\n\n\ndef test_speed(benchmark):\n    benchmark(lambda: None)\n",
    )
    result = suite.pytester.runpytest_subprocess(
        *("-s", "--benchmark-compare", "--benchmark-max-time=0.01"),
        *("-p", "no:hypothesispytest"),
    )
    assert result.ret == 0
    assert "plugins: " in result.stdout.str()
    assert "perfsuite-" in result.stdout.str()
    result.stdout.fnmatch_lines(["*heavy: []"])
    assert "= perfsuite =" not in result.stdout.str()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("parameters", ["perf", "perf, precision", "perf, amp, reference"])
def test_a_missing_device_is_refused(suite: Suite, parameters: str) -> None:
    """Never a fall-back, never a skip, and one line also where parameters depend on it."""
    suite.write("test_steps.py", f"{HEAD}\ndef test_a({parameters}):\n    measure(perf)\n")
    line = usage_error(suite.run("--perf-device=cuda"))
    assert re.search(r"--perf-device cuda: (torch sees no GPU|this torch was built without)", line)
    line = usage_error(suite.run("--perf-device=cpu", "--perf-parallel=fsdp2"))
    assert "--perf-parallel fsdp2: there is one rank; start several (--perf-ranks" in line


def test_a_failed_download_ends_the_session_in_one_line(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object, **__: object) -> NoReturn:
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(torchvision.datasets, "MNIST", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    suite.write(
        "test_steps.py",
        "".join(f"def {name}(perf):\n    perf.fresh('fp32')\n" for name in ("test_a", "test_b")),
    )
    result = suite.run("--perf-data=mnist")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.outlines if "mnist: " in line)
    assert "Temporary failure in name resolution" in line
    assert "use --perf-data mnist5k, which needs no network" in line
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not {"passed", "failed"} & result.parseoutcomes().keys()


MEMORY = "[defaults.memory]\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (THRESHOLDS + MEMORY + "max_peek_ratio = 1.0\n", "max_peek_ratio"),
        (THRESHOLDS + MEMORY + "max_peak_ratio = -1.0\n", "max_peak_ratio"),
        (THRESHOLDS + MEMORY + "max_peak_ratio = nan\n", "max_peak_ratio = nan"),
        (THRESHOLDS + '[hardware."another".compare]\nmargin = -0.1\n', "margin"),
        (THRESHOLDS.replace("warn = []", 'warn = ["comparison"]'), "comparison"),
        ("[defaults\n", "cannot be read"),
    ],
    ids=["unknown-key", "impossible", "nan", "of-other-hardware", "unknown-gate", "not-toml"],
)
def test_an_error_in_the_thresholds_ends_the_session(suite: Suite, text: str, named: str) -> None:
    path = suite.write("thresholds.toml", text)
    suite.write("test_steps.py", timed("test_a"))
    line = usage_error(suite.run())
    assert f"{path}: " in line
    assert named in line


def test_a_suite_without_thresholds_has_built_in_ones(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.remove("thresholds.toml")
    result = suite.run()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["NOT GATED *a step_s*"])


def test_benchmarks_of_two_suites_are_refused(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    suite.write("other/thresholds.toml", THRESHOLDS)
    suite.write("other/test_other.py", timed("test_a"))
    line = usage_error(suite.run())
    assert f"benchmarks of several suites ({suite.folder}, {suite.folder / 'other'})" in line
    assert "run one suite at a time" in line
    assert suite.run("other").ret == 0


@pytest.mark.parametrize("arguments", [("--benchmark-save=x",), ("--benchmark-json=x.json",)])
def test_a_refusal_is_shown_where_warnings_are_errors(
    suite: Suite, arguments: tuple[str, ...]
) -> None:
    """pytest-benchmark warns at the end that there is nothing to save."""
    suite.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    suite.write("test_steps.py", timed("test_a"))
    assert "no promoted run of this hardware" in usage_error(suite.compare(*arguments))
    assert suite.run(*arguments).ret == 0


def test_a_session_without_a_terminal_reporter(suite: Suite) -> None:
    suite.write("test_steps.py", timed("test_a"))
    assert suite.run("-p", "no:terminal").ret == 0


MINE = """
import perfsuite
import torch


@perfsuite.workload(name="mine", data="ones")
def training(precision, device, seed):
    model = torch.nn.Linear(3, 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch):
        optimizer.zero_grad()
        loss = model(batch["x"]).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    batches = [{"x": torch.ones(7, 3)}]
    return perfsuite.Training(step=step, batches=batches, state=[model, optimizer])
"""


def test_a_workload_of_ones_own(suite: Suite) -> None:
    suite.write("conftest.py", MINE)
    suite.write(
        "test_steps.py",
        f"{HEAD}\ndef test_a(perf):\n    perf.fresh('fp32')\n    measure(perf)\n",
    )
    (entry,) = load(suite.record())["benchmarks"]
    config = entry["extra_info"]["perfsuite"]["config"]
    assert (config["workload"], config["data"], config["samples"]) == ("mine", "ones", 7)
    assert config["parameters"] == 3 * 2 + 2
    assert config["batch"] == [["batch['x']", 7, 3, "torch.float32"]]
    assert config["flops"] == 2 * 7 * 3 * 2 * 2  # forward, and the weights' gradient


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("pass", "test_steps.py::test_a measured nothing"),
        ("perf.timed([])", "test_steps.py::test_a measured nothing"),
        ("perf.metric('m', 1.0, unit='s', better='lower')", "measured nothing"),
        ("perf.metric('m', float('nan'), unit='s', better='lower')", "must be finite and positive"),
        ("perf.metric('m', 0.0, unit='s', better='lower')", "must be finite and positive"),
        ("perf.metric('m', 1.0, unit='s', better='less')", "must be 'lower' or 'higher'"),
        ("perf.timed([0.01, float('nan')])", "nan"),
        ("perf.timed([0.01, float('inf')])", "inf"),
        ("perf.timed([0.01, -0.01])", "-0.01"),
    ],
    ids=["empty", "no-times", "a-metric", "nan", "zero", "better", "time-nan", "inf", "negative"],
)
def test_a_benchmark_without_figures_fails(suite: Suite, body: str, reason: str) -> None:
    """For the reason that there is; the others are saved nevertheless."""
    suite.write("test_steps.py", f"{timed('test_b')}\n\ndef test_a(perf):\n    {body}\n")
    result = suite.run("--benchmark-json=run.json")
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1, warnings=result.parseoutcomes().get("warnings", 0))
    result.stdout.fnmatch_lines([f"*{reason}*"])
    assert load(suite.folder / "run.json")["perfsuite"]["items"] == {
        "test_steps.py::test_a": "failed",
        "test_steps.py::test_b": "passed",
    }


@pytest.mark.parametrize(
    "times",
    ["numpy.array([0.5, 0.5])", "[numpy.float64(0.5)] * 2", "[torch.tensor(0.5)] * 2"],
    ids=["array", "numpy-scalars", "tensors"],
)
def test_times_of_any_kind_of_number_are_kept_as_numbers(suite: Suite, times: str) -> None:
    body = f"    perf.timed({times})\n"
    suite.write("test_steps.py", f"import numpy\nimport torch\n\ndef test_a(perf):\n{body}")
    (entry,) = load(suite.record())["benchmarks"]
    assert entry["stats"]["data"] == [0.5, 0.5]
    assert (entry["stats"]["mean"], entry["stats"]["min"]) == (0.5, 0.5)


@pytest.mark.parametrize("body", ["pass", "assert False"])
def test_a_benchmark_that_fails_before_it_has_figures_fails_once(suite: Suite, body: str) -> None:
    """pytest-benchmark warns that its fixture was not used: an error more, under such filters."""
    suite.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    suite.write("test_steps.py", f"def test_a(perf):\n    {body}\n")
    suite.run().assert_outcomes(failed=1)


def test_a_benchmark_that_trains_fails_with_synthetic_data(suite: Suite) -> None:
    """Synthetic digits are for timing: what is to learn fails in one line, and the rest runs."""
    suite.write(
        "test_steps.py", f"{timed('test_a')}\ndef test_b(perf):\n    perf.require_learnable()\n"
    )
    result = suite.run("--perf-data=synthetic")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_steps.py::test_b: nothing can be learnt from*mnist5k*"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.slow
def test_a_comparison_of_plain_benchmarks_is_pytest_benchmark_s_own(
    pytester: pytest.Pytester,
) -> None:
    """Its warning comes where it comes without perfsuite: before anything is collected."""
    pytester.makepyfile("def test_a(benchmark):\n    benchmark(lambda: 1)\n")
    result = pytester.runpytest_subprocess("--benchmark-compare", "-p", "no:xdist")
    assert "Can't compare. No benchmark files" in result.stderr.str()


def test_a_rank_without_a_number_is_refused(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    suite.write("test_steps.py", timed("test_a"))
    assert "RANK is None, and has to be a whole number" in usage_error(suite.run())
