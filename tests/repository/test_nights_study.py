"""The studies of the nightly gate: simulated nights, and pages that are what their JSON says."""

from pathlib import Path

import live_nights_study
import msgspec
import nights_page
import nights_study
import numpy as np
import pytest
from nights_study import NightsCase

from perfsuite.measuring.turns import USUAL_BUDGET_S

DOCS = Path(__file__).parents[2] / "docs" / "studies"


def test_the_published_page_of_nights_is_what_its_json_says() -> None:
    told = msgspec.json.decode((DOCS / "nights.json").read_bytes(), type=list[NightsCase])
    assert (DOCS / "nights.md").read_text().rstrip() == nights_page.page(told).rstrip()


@pytest.mark.parametrize("kind", nights_study.KINDS)
def test_simulated_nights_are_silent_and_find_what_is_planted(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(nights_study, "NIGHTS", 40)
    clean, slower, much_slower = nights_study.case((0.01, kind))
    assert set(clean.said["perfsuite"]) <= {"PASS", "ENVIRONMENT"}
    assert ("ENVIRONMENT" in clean.said["perfsuite"]) is (kind == "software")
    assert set(slower.said["perfsuite"]) <= {"FAIL", "INCONCLUSIVE"}
    assert slower.said["perfsuite, more budget"] == {"FAIL": 40}
    assert much_slower.said["perfsuite"] == {"FAIL": 40}
    assert max(each.most_pairs for each in (clean, slower, much_slower)) <= clean.room


def test_a_confirmation_ends_with_its_budget() -> None:
    room = nights_study.ROOM
    said, usual, pairs = nights_study.confirm(np.random.default_rng(1), 0.04, 0.05)
    assert (said, usual, pairs) == ("INCONCLUSIVE", "INCONCLUSIVE", nights_study.MORE * room)
    assert room * nights_page.PAIR_S == USUAL_BUDGET_S


@pytest.mark.parametrize("path", sorted(DOCS.glob("nights-*.json")), ids=lambda path: path.stem)
def test_the_published_page_of_live_nights_is_what_its_json_says(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=live_nights_study.LiveNights)
    assert path.with_suffix(".md").read_text().rstrip() == live_nights_study.page(study).rstrip()
