"""Ten minutes with a GPU: every minute leaves something, what is done is not done again."""

import ast
import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import gpu_checks
import pytest
from gpu_evidence import (
    CUT_OFF,
    ROOT,
    RUNS,
    TOTAL_S,
    EvidenceStep,
    execute,
    gather,
    steps,
    write_page,
)
from gpu_predictions import PREDICTIONS, came_true, page, proposed, with_speedups

from perfsuite.measuring.ceiling_search import SHARE
from perfsuite.records.schema import read_run


class Commands:
    """Stands for the commands: each takes some seconds of a clock of its own."""

    def __init__(self, took_s: float = 10.0, codes: dict[str, int] | None = None) -> None:
        self.took_s, self.codes = took_s, codes or {}
        self.now_s = 0.0
        self.ran: list[str] = []

    def __call__(self, command: Sequence[str], log: Path, limit_s: float) -> int:
        del command
        self.ran.append(log.stem)
        log.write_text("said", encoding="utf-8")
        self.now_s += min(self.took_s, limit_s)
        return CUT_OFF if self.took_s > limit_s else self.codes.get(log.stem, 0)

    def gather(self, folder: Path, total_s: float = TOTAL_S) -> list[str]:
        asked = steps("cuda", folder)
        return gather(asked, folder, total_s=total_s, execute=self, now=lambda: self.now_s)


def test_what_is_done_is_kept_and_not_done_again(tmp_path: Path) -> None:
    first, second = Commands(), Commands()
    first.gather(tmp_path, total_s=35.0)
    assert first.ran == ["host_share", "kernels", "suite-1", "cuda-tests"]
    lines = second.gather(tmp_path)
    assert second.ran == [s.name for s in steps("cuda", tmp_path) if s.name not in first.ran[:3]]
    assert all("exit code 0" in line for line in lines)


def test_a_step_that_fails_is_evidence_and_one_that_is_cut_off_is_tried_again(
    tmp_path: Path,
) -> None:
    failing = Commands(codes={"cuda-tests": 1})
    assert "cuda-tests: exit code 1 after 10 s" in failing.gather(tmp_path)
    slow, folder = Commands(took_s=1000.0), tmp_path / "slow"
    folder.mkdir()
    lines = slow.gather(folder)
    assert lines[0] == "host_share: cut off after 60 s"
    assert lines[-1] == "detection: not reached"
    assert list(folder.glob("*.done")) == []
    assert slow.now_s == TOTAL_S


def test_runs_are_made_before_a_file_is_changed_that_git_knows(tmp_path: Path) -> None:
    names = [step.name for step in steps("cuda", tmp_path)]
    assert names.index("suite-5") < names.index("promote") < names.index("planted-bugs")


def test_what_needs_cuda_is_left_out_of_a_simulated_evening(tmp_path: Path) -> None:
    names = [[step.name for step in steps(each, tmp_path)] for each in ("cuda", "simulated:t4")]
    assert names[0] == [*names[1], "planted-bugs", "detection"]


def test_every_command_is_there(tmp_path: Path) -> None:
    def scripts(step: EvidenceStep) -> list[str]:
        return [part for part in step.command[1:2] if part.endswith(".py")]

    found = {name for step in steps("cuda", tmp_path) for name in scripts(step)}
    assert found == {"tools/gpu_checks.py", "studies/detection_study.py"}
    assert all((ROOT / name).is_file() for name in found)
    checks = {"host_share", "kernels", "sensor", "spread"}
    assert checks <= {*gpu_checks.CHECKS, "spread"}


def test_the_page_says_of_each_prediction_whether_it_came_true(tmp_path: Path) -> None:
    shares = {"host_share fp16 128": 0.97, "kernel_ms fp32": 12.0}
    (tmp_path / "figures-host_share.json").write_text(json.dumps(shares), encoding="utf-8")
    (tmp_path / "figures-kernels.json").write_text('{"cut', encoding="utf-8")
    written = write_page(tmp_path, "1 x H100", ["host_share: exit code 0"])
    rows = {line.split(" | ")[1]: line for line in written.read_text().splitlines() if "|" in line}
    assert rows["host_share fp16 128"].endswith("| 0.97 | came true |")
    assert rows["kernel_ms fp32"].endswith("| 12 | **did not** |")
    assert rows["launches fp16"].endswith("| not measured |")
    assert json.loads((tmp_path / "evidence.json").read_text())["figures"] == shares


def test_thresholds_are_of_the_batch_that_keeps_the_device_busy() -> None:
    figures = with_speedups(
        {"host_share fp16 128": 0.98, "host_share fp16 256": 0.95, "host_share fp16 512": 0.5}
        | {"step_ms fp32 128": 7.0, "step_ms fp16 128": 3.5}
        | {"step_ms fp32 512": 28.0, "step_ms fp16 512": 7.0}
        | {"spread fp32": 0.004, "spread fp16": 0.012}
    )
    assert figures["speedup fp16-vs-fp32 128"] == 2.0
    assert proposed(figures) == [
        "[amp_speedup.min]",
        "fp16-vs-fp32 = 2.00  # measured: 4.00 at batches of 512",
        "[compare]",
        "assumed_spread = 0.012  # measured: the widest of 2",
    ]
    assert proposed({}) == []
    assert "nothing was measured" in page({}, [], "")


def test_a_test_that_wants_no_gpu_is_skipped_where_there_is_one() -> None:
    asked = "run('--perf-device=" + "cuda"
    wanting, guarded = set(), set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and asked in ast.unparse(node):
                wanting.add(node.name)
                if any("cuda.is_available()" in ast.unparse(each) for each in node.decorator_list):
                    guarded.add(node.name)
    assert wanting == guarded == {"test_a_missing_device_is_refused"}


@pytest.mark.slow
def test_a_whole_evening_on_the_simulated_card(tmp_path: Path) -> None:
    """What an earlier call has done is not done again: here all but the first of the suite's runs.

    They would say the same, since time is simulated; so they are copies.
    """
    repeated = [tmp_path / f"run-{number}.json" for number in range(2, RUNS + 1)]
    for number in range(2, RUNS + 1):
        (tmp_path / f"suite-{number}.done").write_text("exit code 0 after 0 s", encoding="utf-8")

    def patiently(command: Sequence[str], log: Path, limit_s: float) -> int:
        code = execute(command, log, 10 * limit_s)  # of a GPU, whose host does nothing else
        if log.stem == "suite-1":
            for path in repeated:
                shutil.copy(tmp_path / "run-1.json", path)
        return code

    asked = steps("simulated:h100", tmp_path)
    lines = gather(asked, tmp_path, total_s=math.inf, execute=patiently)
    codes = dict(re.findall(r"(.+): exit code (\d+)", "\n".join(lines)))
    refused = codes.pop("promote")
    assert codes == {step.name: "0" for step in asked if step.name != "promote"}
    assert refused != "0"
    assert "its device was simulated" in (tmp_path / "promote.log").read_text(encoding="utf-8")
    write_page(tmp_path, "1 x H100", lines)
    figures = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))["figures"]
    said = {each.figure: came_true(each, figures) for each in PREDICTIONS}
    assert None not in said.values()
    # By these the card was made; it launches operators, not kernels, and draws one mask a seed.
    assert {name for name, true in said.items() if true} >= {
        *("host_share fp32 128", "host_share fp16 128", "host_share bf16 128"),
        *("host_share fp16 1024", "host_ms fp16 128", "kernel_ms fp32", "kernel_ms tf32"),
        *("kernel_ms fp16", "kernel_ms bf16", "speedup fp16-vs-fp32 128", "spread fp32"),
    }
    assert figures["key"].startswith("simulated-")
    assert_said_of_a_healthy_night(tmp_path)


def assert_said_of_a_healthy_night(folder: Path) -> None:
    """Hold what the suite said against the card: its host is late in mixed precision only."""
    assert "SIMULATED: no figure here was measured" in (folder / "suite-1.log").read_text()
    for name in ("report.html", "report.md"):
        report = (folder / "report" / name).read_text(encoding="utf-8")
        assert "simulated: nothing was measured" in report.replace("\\", "")
    run = read_run(folder / "run-1.json")
    assert run.simulated
    assert run.complete
    said: dict[str, list[tuple[str, str]]] = {}
    for key, each in run.benchmarks.items():
        for verdict in each.verdicts:
            said.setdefault(verdict.gate, []).append((key.partition("::")[2], verdict.shown))
    words = {word for told in said.values() for _, word in told}
    assert words == {"PASS", "HOST-BOUND", "NOT GATED"}
    # At the batch that keeps the device busy, where a speed-up is gated, nobody is late.
    pairs = [f"{amp}-vs-{other}" for amp in ("fp16", "bf16") for other in ("fp32", "tf32")]
    late = [test for test, word in said["host_bound"] if word == "HOST-BOUND"]
    assert late == [
        *(f"test_amp_speedup[{pair}]" for pair in pairs),
        *(f"test_step_time[{half}]" for half in ("fp16", "bf16")),
    ]
    assert said["amp_speedup"] == [(f"test_amp_speedup[{pair}]", "PASS") for pair in pairs]
    assert [word for _, word in said["mean_loss"]] == ["PASS"] * 2
    assert [word for _, word in said["probe all"]] == ["PASS"] * 4
    rates = run.benchmarks["test_step_time.py::test_step_time[fp32]"].raw["throughput"]
    assert 0.5 < rates[SHARE] <= 1  # of what the card can do
