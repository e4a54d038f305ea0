"""The study of stopping: its rules and pairs are what perfsuite does, and its page its JSON."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import stopping_page
import stopping_rules
import stopping_study
from fakes import block
from stopping_rules import NOW, ColdRestart

from perfsuite.devices.choice import choose_device
from perfsuite.judging.interleaving import Duet, pooled_ratio, quad
from perfsuite.judging.stopping import sample

DOCS = Path(__file__).parents[2] / "docs" / "studies"
RESTARTS = sorted(DOCS.glob("restarts-*.json"))


def cold(*, letters: str = "AB", b: float = 1.0) -> ColdRestart:
    order = letters + "ABBABAAB" * 2
    seconds = [(1.0 if letter == "A" else b) * (1 + 0.001 * at) for at, letter in enumerate(order)]
    return ColdRestart(order=order, start_s=1.0, end_s=0.5, blocks_s=[3.0, 3.0, *seconds[2:]])


def test_the_published_page_of_stopping_is_what_its_json_says() -> None:
    recorded = (DOCS / "stopping.json").read_bytes()
    told = msgspec.json.decode(recorded, type=stopping_page.StoppingCases)
    assert (DOCS / "stopping.md").read_text().rstrip() == stopping_page.page(told).rstrip()


@pytest.mark.parametrize("path", RESTARTS, ids=lambda path: path.stem)
def test_the_published_pairs_are_those_of_the_recordings(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=stopping_study.Recorded)
    recorded = (DOCS / "stopping.json").read_bytes()
    told = msgspec.json.decode(recorded, type=stopping_page.StoppingCases)
    for way, pair in zip(stopping_rules.WAYS, told.pairs, strict=True):
        measured = [stopping_rules.measured(each, way, steps=2) for each in study.restarts]
        assert pair.seconds == round(float(np.mean([cost_s for _, cost_s in measured])), 3)


def test_the_way_of_now_is_what_perfsuite_does() -> None:
    restart = cold(b=1.1)
    (*_, now) = stopping_rules.WAYS
    ratio, _ = stopping_rules.measured(restart, now, steps=2)
    turns = {
        letter: iter([block(each) for each in restart.of(letter)[1:]]).__next__ for letter in "AB"
    }
    quads = tuple(quad(turns["A"], turns["B"], index) for index in range(4))
    assert np.exp(ratio) == pytest.approx(Duet(quads).point("B", over="A"))


def test_the_rule_of_now_is_what_perfsuite_does() -> None:
    series = np.random.default_rng(1).normal(0.02, 0.03, (20, stopping_rules.LONGEST))
    said, taken = stopping_rules.judge(series, NOW)
    for row, word, n in zip(series, said, taken, strict=True):

        def words(ratios: Sequence[float]) -> int:
            found = pooled_ratio(ratios, confidence=0.99)
            if found.low > 1.05:
                return stopping_rules.SLOWER
            inside = found.low >= 1 / 1.05 and found.high <= 1.05
            return stopping_rules.SAME if inside else stopping_rules.OPEN

        ratios = np.exp(row).tolist()
        observed = sample(ratios.__getitem__, clear=lambda seen: bool(words(seen)), budget_s=1e9)
        assert (words(observed), len(observed)) == (word, n)


def test_the_study_of_stopping_is_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = {"simulated": 4, "replayed": 4, "suites": 3}
    monkeypatch.setattr(stopping_study, "TRIALS", trials)
    monkeypatch.setattr(stopping_study, "NOISES", ("normal", "r = 0.2"))
    for path in RESTARTS:
        name = f"restarts-{choose_device('cpu').hardware().key}.json"
        (tmp_path / name).write_bytes(path.read_bytes())
    written = []
    for _ in range(2):
        assert stopping_study.main(["--folder", str(tmp_path)]) == 0
        written.append((tmp_path / "stopping.json").read_bytes())
    assert written[0] == written[1]


def test_a_study_of_stopping_without_recordings_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopping_study.main(["--folder", str(tmp_path)]) == 1
    assert "--record writes it" in capsys.readouterr().err
