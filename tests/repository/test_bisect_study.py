"""The study of bisections: its words are true, and its page is what its JSON says."""

import random
import re
from pathlib import Path

import bisect_study
import live_bisect_study
import msgspec
import pytest
from bisect_study import BisectCase, case, git_bisect, page, word
from projects import git_in

from perfsuite.judging.change_search import FoundChange, SearchAnswer
from perfsuite.judging.estimates import Estimate

DOCS = Path(__file__).parents[2] / "docs" / "studies"


def answer(*ranges: tuple[int, int], decided: bool = True) -> SearchAnswer:
    changes = tuple(
        FoundChange(first=first, last=last, ratio=Estimate.exact(1.1), probability=0.99)
        for first, last in ranges
    )
    return SearchAnswer(changes=changes, probability=0.99, decided=decided)


@pytest.mark.parametrize(
    ("said", "changed", "worth"),
    [
        (answer((3, 3)), [3], "right"),
        (answer((2, 4)), [3], "range"),
        (answer((4, 5)), [3], "wrong"),
        (answer((4, 4)), [3], "wrong"),
        (answer((4, 4)), [], "wrong"),
        (answer(), [3], "missed"),
        (answer((3, 3)), [3, 9], "missed"),
        (answer(), [], "right"),
        (answer(decided=False), [], "open"),
    ],
)
def test_what_an_answer_is_worth(said: SearchAnswer, changed: list[int], worth: str) -> None:
    assert word(said, changed) == worth


@pytest.mark.parametrize("at", [1, 33, 64])
def test_git_names_the_first_that_is_bad_if_every_answer_is_true(at: int) -> None:
    assert git_bisect(lambda commit: commit >= at) == at


def test_a_case_is_the_same_each_time_and_finds_what_was_planted() -> None:
    found = case(0, 0.02, "+10 %", 5)
    assert found == case(0, 0.02, "+10 %", 5)
    assert found.said == {"right": 5}
    assert found.most <= 18


def test_the_published_page_of_bisections_is_what_its_json_says() -> None:
    recorded = (DOCS / "bisect.json").read_bytes()
    told = msgspec.json.decode(recorded, type=list[BisectCase])
    assert (DOCS / "bisect.md").read_text().rstrip() == page(told).rstrip()
    kinds = {(each.noise, each.planted) for each in told}
    assert len(kinds) == len(bisect_study.NOISES) * len(bisect_study.PLANTED)


def test_the_published_searches_are_as_good_as_is_asked() -> None:
    told = msgspec.json.decode((DOCS / "bisect.json").read_bytes(), type=list[BisectCase])
    for each in told:
        assert each.most <= 18
        assert each.said.get("wrong", 0) <= 0.01 * each.searches
        if each.planted == "none":
            assert each.said["right"] >= 0.99 * each.searches
        if "," in each.planted and "drifts" not in each.planted:
            assert each.said["right"] >= 0.9 * each.searches
        if each.noise <= 0.02 and each.planted.startswith("+10 %"):
            assert each.said["right"] >= (0.95 if "," not in each.planted else 0.9) * each.searches


LIVE = sorted(DOCS.glob("bisect-*.json"))


@pytest.mark.parametrize("path", LIVE, ids=lambda path: path.stem)
def test_the_published_page_of_live_bisections_is_what_its_json_says(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=live_bisect_study.LiveBisections)
    assert path.with_suffix(".md").read_text().rstrip() == live_bisect_study.page(study).rstrip()
    for each in study.searches:
        told = live_bisect_study.worth(each.found, each.at, decided=each.worth != "open")
        assert each.worth == told


def test_a_repository_of_the_live_study_changes_where_it_was_planted(tmp_path: Path) -> None:
    draw = random.Random(1)
    live_bisect_study.repository(tmp_path, {3: 0.2}, draw, commits=4)
    code = [
        git_in(tmp_path, "show", f"HEAD~{4 - commit}:src/mynet/__init__.py") for commit in range(5)
    ]
    taken = [int(re.findall(r"MICROBATCHES = (\d+)", each)[0]) for each in code]
    assert taken == [50, 50, 50, 60, 60]
