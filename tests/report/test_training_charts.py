"""Charts of training and memory show the figures of the run's JSON."""

from pathlib import Path
from statistics import fmean

import pytest
from reports import content, published, record

CONVERGENCE = "test_amp_convergence[bf16]"
MEMORY = "test_amp_memory[bf16]"


def test_losses_are_those_of_the_run(tmp_path: Path) -> None:
    document = published(CONVERGENCE)
    pairs = record(document, CONVERGENCE)["raw"]["pairs"]
    chart = content(tmp_path, document).charts("Training")["amp_convergence[bf16]"]
    assert chart.rows[0][0] == 1
    assert chart.rows[-1][0] == len(pairs[0]["reference"]["losses"])
    for step, *figures in chart.rows:
        for side, at in (("reference", 0), ("candidate", 3)):
            losses = [pair[side]["losses"][int(step) - 1] for pair in pairs]
            expected = [fmean(losses), min(losses), max(losses)]
            assert figures[at : at + 3] == pytest.approx(expected)
    assert {"fp32", "bf16"} <= set(chart.drawn().texts)


def test_a_loss_that_is_not_finite_ends_its_curve(tmp_path: Path) -> None:
    document = published(CONVERGENCE)
    record(document, CONVERGENCE)["raw"]["pairs"][0]["candidate"]["losses"][5] = None
    chart = content(tmp_path, document).charts("Training")["amp_convergence[bf16]"]
    for step, *losses in chart.rows:
        assert all(isinstance(loss, float) for loss in losses[:3])
        assert (losses[3:] == ["", "", ""]) is (float(step) > 5)
    assert len(chart.rows) > 6


def test_a_training_that_diverged_at_once_is_shown_beside_the_other(tmp_path: Path) -> None:
    document = published(CONVERGENCE)
    for pair in record(document, CONVERGENCE)["raw"]["pairs"]:
        pair["candidate"]["losses"] = [None] * len(pair["candidate"]["losses"])
        pair["candidate"]["scales"] = [65536.0, None, 0.0]
        pair["candidate"]["skipped_steps"] = 2
    charts = content(tmp_path, document).charts("Training")
    assert "fp32" in charts["amp_convergence[bf16]"].drawn().texts
    chart = charts["amp_convergence[bf16]: loss scale"]
    assert chart.row(0.0) == [65536, 0, 2, "none"]
    assert chart.drawn().label


def test_the_scale_and_the_steps_that_were_skipped(tmp_path: Path) -> None:
    document = published(CONVERGENCE)
    pairs = record(document, CONVERGENCE)["raw"]["pairs"]
    steps = len(pairs[0]["candidate"]["losses"])
    for pair in pairs:
        pair["candidate"]["scales"] = [65536.0] * (steps + 1)
    pairs[1]["candidate"]["skipped_steps"] = 1
    pairs[1]["candidate"]["scales"][3:] = [32768.0] * (steps - 2)
    chart = content(tmp_path, document).charts("Training")["amp_convergence[bf16]: loss scale"]
    assert chart.row(0.0) == [65536, 65536, 0, "none"]
    assert chart.row(1.0) == [65536, 32768, 1, "3"]
    assert {"skipped step", "32768", "65536"} <= set(chart.drawn().texts)


def test_memory_is_that_of_the_run(tmp_path: Path) -> None:
    document = published(MEMORY)
    kept = record(document, MEMORY)["raw"]["activation_bytes_per_image"]
    chart = content(tmp_path, document).charts("Memory")["amp_memory[bf16]: activations"]
    assert {name: chart.row(name)[0] for name in kept} == kept


def test_the_peak_on_a_gpu(tmp_path: Path) -> None:
    document = published(MEMORY)
    record(document, MEMORY)["raw"]["peaks"] = {
        name: {"allocated_bytes": size, "reserved_bytes": 2 * size, "grew": False}
        for name, size in (("fp32", 3_000_000), ("fp16", 2_000_000))
    }
    chart = content(tmp_path, document).charts("Memory")["amp_memory[bf16]: peak on the GPU"]
    assert chart.row("fp16") == [2_000_000, 4_000_000]
    assert {"allocated", "reserved", "MiB"} <= set(chart.drawn().texts)


def test_peaks_by_batch_are_those_of_the_run(tmp_path: Path) -> None:
    document = published(MEMORY)
    tries: dict[str, list[tuple[int, float | None]]] = {
        "fp32": [(16, 100.0), (32, None), (24, 150.0)],
        "bf16": [(16, 60.0), (32, 110.0)],
    }
    record(document, MEMORY)["raw"]["largest_batches"] = {
        precision: {
            "samples": max(n for n, peak in tried if peak is not None),
            "tries": [{"samples": n, "peak_bytes": peak, "why_not": ""} for n, peak in tried],
        }
        for precision, tried in tries.items()
    }
    chart = content(tmp_path, document).charts("Memory")["amp_memory[bf16]: peak by batch"]
    assert chart.rows == [[16, 100.0, 60.0], [32, "too large", 110.0]]
    assert {"16 samples", "32 samples", "fp32", "bf16"} <= set(chart.drawn().texts)
