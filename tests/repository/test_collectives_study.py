"""The study of collectives: its page says what was counted, and what it says of ranks holds."""

from itertools import groupby

import collectives_study
import msgspec
from collectives_study import FOLDER, CollectivesCase, case

from perfsuite.judging.counts import Ledger
from perfsuite.measuring.collective_counts import RANKS


def published() -> list[CollectivesCase]:
    content = (FOLDER / "collectives.json").read_bytes()
    return msgspec.json.decode(content, type=list[CollectivesCase])


def test_the_published_page_is_what_its_json_says() -> None:
    text = (FOLDER / "collectives.md").read_text(encoding="utf-8")
    assert text.rstrip() == collectives_study.page(published())


def test_what_the_page_says_of_ranks_holds() -> None:
    for _, group in groupby(published(), key=lambda each: each.training):
        cases = list(group)
        assert [each.ranks for each in cases] == list(RANKS)
        assert len({str(each.collectives) for each in cases}) == 1
        assert [each.nbytes for each in cases] == sorted(each.nbytes for each in cases)
    assert all("broadcast" in each.collectives for each in published() if each.training == "DDP")


def test_a_ledger_is_summed_up_by_kind() -> None:
    counts = {
        "forward: all_gather bfloat16": 3,
        "backward: all_gather float32": 2,
        "backward: barrier": 1,
        "bytes forward: all_gather bfloat16": 60,
        "bytes backward: all_gather float32": 80,
        "parameters on a rank": 7,
    }
    found = case("DDP", 8, Ledger(counts=counts), 0.5)
    assert found.collectives == {"all_gather": 5, "barrier": 1}
    assert (found.nbytes, found.parameters) == (140, 7)
