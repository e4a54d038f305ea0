"""The study on a simulated GPU: its page is what its JSON says, and a sample says the same."""

from pathlib import Path

import msgspec
import pytest
import simulated_gpu_page
import simulated_gpu_study
from simulated_gpu_study import SaidOf
from simulated_gpu_truths import THROTTLED, TRUTHS, Truth

DOCS = Path(__file__).parents[2] / "docs" / "studies"
PUBLISHED = msgspec.json.decode((DOCS / "simulated-gpu.json").read_bytes(), type=list[SaidOf])
SAMPLE = [
    truth
    for truth in TRUTHS
    if truth.name in ("kernel +3 %", "host +20 %", "a neighbour", "AMP stopped paying")
    or (truth.name, truth.asked) == (THROTTLED, "a night")
]


def test_the_published_page_is_what_its_json_says() -> None:
    assert (DOCS / "simulated-gpu.md").read_text() == simulated_gpu_page.page(PUBLISHED)


def test_every_truth_was_told_as_it_is() -> None:
    assert [(each.name, each.asked, each.precision) for each in PUBLISHED] == [
        (truth.name, truth.asked, truth.precision) for truth in TRUTHS
    ]
    assert [each for each in PUBLISHED if each.right < each.cases] == []


@pytest.mark.no_cover
@pytest.mark.parametrize("truth", SAMPLE, ids=lambda t: f"{t.asked}, {t.precision}, {t.name}")
def test_what_is_planted_is_found_and_nobody_else_is_blamed(truth: Truth) -> None:
    found = simulated_gpu_study.case(truth, seeds=1)
    assert found.right == 1, found.said
