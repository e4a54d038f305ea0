"""Ten minutes with a GPU: every minute leaves something, what is done is not done again."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gpu_checks
import pytest
from gpu_evidence import CUT_OFF, ROOT, TOTAL_S, EvidenceStep, gather, steps, write_page
from gpu_predictions import PREDICTIONS, came_true, page, proposed, with_speedups

from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import Device


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


@pytest.fixture(params=["simulated:h100"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    yield choose_device(request.param)
    choose_device("cpu")


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


@pytest.mark.slow
def test_the_checks_find_on_the_simulated_card_what_it_was_made_from(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_checks, "BATCHES", (128, 256))
    monkeypatch.setattr(gpu_checks, "STEPS", 2)
    found: dict[str, Any] = {}
    for check in ("host_share", "kernels", "sensor"):
        found |= gpu_checks.CHECKS[check](device)
    figures = with_speedups(found)
    said = {each.figure: came_true(each, figures) for each in PREDICTIONS}
    told = {f for f, true in said.items() if true}
    assert told >= {"host_share fp16 128", "kernel_ms fp32", "kernel_ms tf32", "host_ms fp16 128"}
    assert said["spread fp32"] is None
    assert figures["key"].startswith("simulated-")
