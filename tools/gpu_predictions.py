"""What a step on an H100 was predicted to cost before any ran, and what figures say of that.

The predictions are estimates from the arithmetic and the memory of the tutorial's network at
batches of 128, and from a reading of torch's source. Nothing here measures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prediction:
    """A figure, between which bounds it was predicted to lie, and what that would mean."""

    figure: str
    low: float
    high: float
    says: str


PREDICTIONS = (
    Prediction("host_share fp32 128", 0.0, 0.7, "IEEE fp32 keeps the GPU busy"),
    Prediction("host_share fp16 128", 0.9, 1.0, "fp16 waits for its host"),
    Prediction("host_share bf16 128", 0.9, 1.0, "bf16 waits for its host"),
    Prediction("host_share fp16 1024", 0.0, 0.7, "a larger batch keeps the GPU busy"),
    Prediction("host_ms fp32 128", 2.5, 3.5, "the host's part of an fp32 step"),
    Prediction("host_ms fp16 128", 3.0, 4.5, "the host's part of an fp16 step"),
    Prediction("kernel_ms fp32", 6.0, 9.0, "kernels of an fp32 step"),
    Prediction("kernel_ms tf32", 2.8, 3.8, "kernels of a TF32 step"),
    Prediction("kernel_ms fp16", 2.0, 2.5, "kernels of an fp16 step"),
    Prediction("kernel_ms bf16", 2.0, 2.5, "kernels of a bf16 step"),
    Prediction("launches fp32", 170, 200, "kernels launched by an fp32 step"),
    Prediction("launches fp16", 280, 330, "kernels launched by an fp16 step"),
    Prediction("inflation fp16", 1.05, math.inf, "profiling slows a host-bound step down"),
    Prediction("speedup fp16-vs-fp32 128", 1.7, 2.6, "the honest speed-up over IEEE fp32"),
    Prediction("speedup fp16-vs-tf32 128", 0.75, 1.1, "none over TF32 at 128"),
    Prediction("speedup fp16-vs-tf32 512", 1.3, 1.6, "one over TF32 at 512"),
    Prediction("reading_ms", 0.0, 5.0, "a reading of the state costs little"),
    Prediction("same_masks", 0, 0, "dropout's masks differ by dtype"),
    Prediction("spread fp32", 0.0, 0.01, "fresh processes differ by a per cent at most"),
)
BUSY = 0.7
"""Of a block's time: where the host launches for less, it is not what the step waits for."""


def with_speedups(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with the speed-ups that follow from step times at each batch."""
    found = dict(figures)
    for name, step_ms in figures.items():
        kind, _, rest = name.partition(" ")
        precision, _, batch = rest.partition(" ")
        if kind != "step_ms" or precision not in ("fp16", "bf16"):
            continue
        for reference in ("fp32", "tf32"):
            if slower_ms := figures.get(f"step_ms {reference} {batch}"):
                found[f"speedup {precision}-vs-{reference} {batch}"] = slower_ms / step_ms
    return found


def came_true(prediction: Prediction, figures: Mapping[str, Any]) -> bool | None:
    """Tell whether a prediction came true, None where its figure was not measured."""
    found = figures.get(prediction.figure)
    return None if found is None else bool(prediction.low <= found <= prediction.high)


def proposed(figures: Mapping[str, Any]) -> list[str]:
    """Return thresholds as lines of TOML: half-way, on a log scale, from no gain to what was found.

    They are of the smallest batch that keeps the device busy, or of the largest that was tried.
    """
    lines = []
    for precision in ("fp16", "bf16"):
        batches = sorted(
            int(name.rpartition(" ")[2])
            for name in figures
            if name.startswith(f"host_share {precision} ")
        )
        busy = [n for n in batches if figures[f"host_share {precision} {n}"] < BUSY]
        for batch in [*busy, *batches[-1:]][:1]:
            for reference in ("fp32", "tf32"):
                speedup = figures.get(f"speedup {precision}-vs-{reference} {batch}")
                if speedup is not None and speedup > 1:
                    told = f"{speedup:.2f} at batches of {batch}"
                    told += "" if busy else ", where the host still holds it up"
                    floor = math.sqrt(speedup)
                    lines.append(f"{precision}-vs-{reference} = {floor:.2f}  # measured: {told}")
    lines = ["[amp_speedup.min]", *lines] if lines else []
    spreads = [v for name, v in figures.items() if name.startswith("spread ")]
    if spreads:
        told = f"# measured: the widest of {len(spreads)}"
        lines += ["[compare]", f"assumed_spread = {max(*spreads, 0.002):.3f}  {told}"]
    return lines


def page(figures: Mapping[str, Any], done: Sequence[str], about: str) -> str:
    """Return what came of the predictions, what is proposed, and what was done, as Markdown."""
    rows = []
    for each in PREDICTIONS:
        word = {True: "came true", False: "**did not**", None: "not measured"}
        found = figures.get(each.figure, "")
        shown = f"{found:.4g}" if isinstance(found, float) else str(found)
        bounds = f"{each.low:g} to {each.high:g}"
        says = word[came_true(each, figures)]
        rows.append(f"| {each.says} | {each.figure} | {bounds} | {shown} | {says} |")
    thresholds = proposed(figures) or ["# nothing was measured that they could be argued from"]
    return "\n".join(
        [
            "# Evidence from a GPU",
            "",
            about,
            "",
            "## Predictions",
            "",
            "| what | figure | predicted | found | |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "## Thresholds that follow",
            "",
            "```toml",
            *thresholds,
            "```",
            "",
            "## What was run",
            "",
            *(f"- {line}" for line in done),
            "",
        ]
    )
