"""Every snippet that a page shows is run: Python as part of a suite, TOML as thresholds."""

from pathlib import Path

import pytest
from documents import DOCS, PAGES, blocks, name_of

from perfsuite.judging.thresholds import ThresholdsError, load_thresholds

PYTHON = [(page, each) for page in PAGES for each in blocks(page, "python")]
TOML = [(page, each) for page in PAGES for each in blocks(page, "toml")]

# What the snippets take from a project.
MINE = """
import torch
from torch import nn


def build_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, 10))


def load_batches(seed):
    draw = torch.Generator().manual_seed(seed)
    return [{"image": torch.rand(8, 1, 28, 28, generator=draw), "label": torch.arange(8)}]


old_kernel = new_kernel = torch.exp


def fit(callback):
    for _ in range(40):
        callback()
"""
PROBED = "\n\nfrom perfsuite.benchmarks import test_amp_probes\n"
TIMED = "from perfsuite.benchmarks import test_step_time\n"  # whose rates are made of these


@pytest.mark.slow
def test_python_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine=MINE)
    pytester.makeconftest(PYTHON[0][1])  # what is trained where a snippet says nothing
    trainings = 0
    for number, (page, text) in enumerate(PYTHON):
        name = f"test_{number}_{page.stem.replace('-', '_').lower()}"
        if "def test_" not in text:
            trainings += 1
            text += PROBED + TIMED * ("tokens=" in text)  # noqa: PLW2901  # what it is for
        # The only line that a real timing would decide.
        pytester.makepyfile(**{name: text.replace("minimum=1.1", "minimum=0.01")})
    result = pytester.runpytest_subprocess("--perf-device=cpu", "--perf-budget=1")
    assert result.ret == 0, result.stdout.str()
    passed = [line for line in result.outlines if " probes passed" in line]
    assert len(passed) == 2 * trainings > 6, result.stdout.str()


def test_every_snippet_is_seen() -> None:
    assert {name_of(page) for page, _ in PYTHON} == {
        "README.md",
        "docs/before-after.md",
        "docs/ledger.md",
        "docs/own-training.md",
    }
    assert {name_of(page) for page, _ in TOML} == {"docs/thresholds.md"}


def test_readme_shows_what_the_page_shows() -> None:
    shown = {name_of(page): text for page, text in reversed(PYTHON)}
    assert shown["README.md"] == shown["docs/own-training.md"]


@pytest.mark.parametrize("snippet", [text for _, text in TOML])
def test_thresholds_are_valid(snippet: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.toml"
    path.write_text(snippet, encoding="utf-8")
    found = load_thresholds(path, "nvidia-h200-x1")
    assert found.amp_speedup.minimum("bf16", "fp32") == 1.5
    assert found.warn == ("loader",)
    other = load_thresholds(path, "nvidia-h100-x1")
    assert other.warn == ()
    assert other.memory.max_activation_ratio == found.memory.max_activation_ratio == 0.75


def test_the_error_that_is_shown_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("benchmarks") / "thresholds.toml"
    path.parent.mkdir()
    path.write_text('[hardware."nvidia-*".amp_speedup]\nminimum = 1.3\n', encoding="utf-8")
    with pytest.raises(ThresholdsError) as caught:
        load_thresholds(path, "cpu-x")
    (shown,) = blocks(DOCS / "thresholds.md", "text")
    assert str(caught.value) == shown.strip()
