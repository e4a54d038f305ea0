"""What became of a figure, from what two trees measured: words, and never green for nothing."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from fakes import block
from hypothesis import given
from hypothesis import strategies as st

from perfsuite.against.restart import Restart
from perfsuite.against.verdicts import could_not_run, is_counted, verdicts
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.judging.interleaving import Duet, Quad
from perfsuite.judging.thresholds import AgainstLimits, CompareLimits, ConvergenceLimits, Thresholds

ASKED = Thresholds(
    convergence=ConvergenceLimits(margin=0.02, max_skipped=0.02, min_scale=1.0, max_scale=2.0),
    compare=CompareLimits(margin=0.05, assumed_spread=0.01, environment="fail"),
    against=AgainstLimits(margin=0.05),
)


def duet(ratio: float, *, throttled: bool = False) -> Duet:
    times = {"A": 0.01, "B": 0.01 * ratio}
    held = ("heat",) if throttled else ()
    blocks = tuple(block(times[letter], held) for letter in "ABBA")
    return Duet((Quad(order="ABBA", blocks=blocks),))


def record(
    metrics: Mapping[str, Any] | None = None, losses: Sequence[Sequence[float | None]] = ()
) -> dict[str, Any]:
    pairs = [
        {"seed": seed, "reference": {"losses": each}, "candidate": {"losses": each}}
        for seed, each in enumerate(losses)
    ]
    return {"metrics": metrics or {}, "raw": {"pairs": pairs} if pairs else {}}


def figure(value: float, unit: str = "B", better: str = "lower") -> dict[str, Any]:
    return {"figure": {"value": value, "unit": unit, "better": better}}


def timed(ratios: Sequence[float]) -> list[Restart]:
    return [
        Restart(started="AB", duets={"step_s": duet(ratio)}, before=record(), after=record())
        for ratio in ratios
    ]


def measured(before: Any, after: Any, n: int = 12) -> list[Restart]:
    return [Restart(started="AB", duets={}, before=before, after=after)] * n


def only(restarts: Sequence[Restart]) -> Verdict:
    (verdict,) = verdicts(restarts, ASKED)
    return verdict


@pytest.mark.parametrize(
    ("ratios", "word", "outcome"),
    [
        ([1.0, 1.001] * 6, "SAME", Outcome.PASS),
        ([1.2, 1.21] * 6, "SLOWER", Outcome.FAIL),
        ([0.8, 0.81] * 6, "FASTER", Outcome.PASS),
        ([1.04, 1.06] * 6, "INCONCLUSIVE", Outcome.INCONCLUSIVE),
        ([0.7, 1.4] * 6, "INCONCLUSIVE", Outcome.INCONCLUSIVE),
        ([1.5], "INCONCLUSIVE", Outcome.INCONCLUSIVE),
    ],
)
def test_times_are_pooled_a_restart_an_observation(
    ratios: list[float], word: str, outcome: Outcome
) -> None:
    verdict = only(timed(ratios))
    assert (verdict.shown, verdict.outcome) == (word, outcome)
    assert f"{len(ratios)} restarts" in verdict.reason


def test_slower_beyond_one_and_within_the_margin_is_the_same() -> None:
    assert only(timed([1.02, 1.021] * 6)).shown == "SAME"


def test_the_smallest_change_that_would_have_been_seen_is_said() -> None:
    assert "a change of 5.0% would have been seen" in only(timed([1.0] * 12)).reason


def test_throttled_restarts_are_set_aside_and_counted() -> None:
    held = Restart(
        started="AB",
        duets={"step_s": duet(9.0, throttled=True)},
        before=record(),
        after=record(),
    )
    verdict = only([*timed([1.0] * 12), held])
    assert verdict.shown == "SAME"
    assert "12 restarts, 1 more were throttled and set aside" in verdict.reason
    # Nine times as long is what the throttled ones would say.
    assert verdict.figure.endswith("(10 ms -> 10 ms)")
    assert only([held] * 12).outcome is Outcome.INCONCLUSIVE


def test_where_most_was_throttled_the_rest_is_not_judged() -> None:
    held = Restart(
        started="AB",
        duets={"step_s": duet(1.0, throttled=True)},
        before=record(),
        after=record(),
    )
    assert only([*timed([1.0] * 12), *[held] * 12]).shown == "SAME"
    verdict = only([*timed([1.0] * 12), *[held] * 13])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the device was held back most of the time" in verdict.reason


def test_nearly_every_change_that_would_have_been_seen_is() -> None:
    noise, spread = random.Random(1), 0.02
    found = []
    for _ in range(200):
        same = only(timed([math.exp(noise.gauss(0, spread)) for _ in range(40)]))
        if same.shown != "SAME":
            continue
        (share,) = re.findall(r"a change of ([0-9.]+)%", same.reason)
        slower = [(1 + float(share) / 100) * math.exp(noise.gauss(0, spread)) for _ in range(40)]
        found.append(only(timed(slower)).shown == "SLOWER")
    assert len(found) > 50
    assert sum(found) >= 0.9 * len(found)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (figure(100), figure(100), "SAME"),
        (figure(100), figure(104), "SAME"),
        (figure(100), figure(106), "MORE"),
        (figure(100), figure(50), "LESS"),
        (figure(1.0, "s"), figure(2.0, "s"), "SLOWER"),
        (figure(2.0, "s"), figure(1.0, "s"), "FASTER"),
        (figure(1.0, "x", "higher"), figure(0.5, "x", "higher"), "WORSE"),
        (figure(1.0, "x", "higher"), figure(2.0, "x", "higher"), "BETTER"),
        (figure(1.0, "x"), figure(2.0, "x"), "WORSE"),
    ],
)
def test_figures_have_words_of_their_kind(
    before: dict[str, Any], after: dict[str, Any], word: str
) -> None:
    verdict = only(measured(record(before), record(after)))
    assert verdict.shown == word
    bad = word in {"MORE", "SLOWER", "WORSE"}
    assert verdict.outcome is (Outcome.FAIL if bad else Outcome.PASS)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, figure(1), "before did not measure it"),
        (figure(1), {}, "after did not measure it"),
        (figure(1, "B"), figure(1, "s"), "its unit or direction changed"),
        (figure(1), figure(1, "B", "higher"), "its unit or direction changed"),
        ({}, {}, "nothing was measured on both sides"),
    ],
)
def test_what_was_not_measured_on_both_sides_fails(
    before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    verdict = only(measured(record(before), record(after)))
    assert verdict.outcome is Outcome.FAIL
    assert message in verdict.figure


def test_seconds_that_a_side_adds_up_from_its_turns_are_not_judged_twice() -> None:
    restarts = [
        Restart(
            started="AB",
            duets={"step_s": duet(1.0)},
            before=record({"step_s": figure(1.0, "s")["figure"]}),
            after=record({"step_s": figure(9.0, "s")["figure"]}),
        )
    ] * 12
    assert [verdict.gate for verdict in verdicts(restarts, ASKED)] == ["against step_s"]


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ([[2.0, 1.0], [2.2, 1.1]], "SAME"),
        ([[2.2, 1.1], [2.42, 1.21]], "DIFFERENT"),
        ([[1.8, 0.9], [1.98, 0.99]], "DIFFERENT"),
        ([[2.0, 1.0], [2.3, 1.2]], "INCONCLUSIVE"),
        ([[2.0, None], [2.2, 1.1]], "FAIL"),
    ],
    ids=["same", "higher", "lower", "unclear", "nan"],
)
def test_losses_are_compared_by_seed(now: list[list[float | None]], word: str) -> None:
    then = [[2.0, 1.0], [2.2, 1.1]]
    found = verdicts(measured(record(losses=then), record(losses=now), n=1), ASKED)
    assert [verdict.shown for verdict in found] == [word, word]
    assert [verdict.gate for verdict in found] == [
        "against reference mean_loss",
        "against candidate mean_loss",
    ]


def test_only_the_side_after_is_at_fault() -> None:
    assert could_not_run("before", "").outcome is Outcome.INCONCLUSIVE
    assert could_not_run("after", "").outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("restarts", "counted"),
    [
        (measured(record(figure(1)), record(figure(2)), n=2), True),
        (measured(record(figure(1)), record(figure(2)), n=1), False),
        (
            [
                *measured(record(figure(1)), record(figure(2)), n=1),
                *measured(record(figure(1)), record(figure(3)), n=1),
            ],
            False,
        ),
        (measured(record(figure(1, "s")), record(figure(1, "s")), n=2), False),
        (timed([1.0, 1.0]), False),
        (measured(record(losses=[[1.0]]), record(losses=[[1.0]]), n=1), True),
    ],
    ids=["bytes-twice", "bytes-once", "bytes-that-differ", "seconds", "turns", "losses"],
)
def test_what_is_counted_is_not_repeated(restarts: list[Restart], counted: bool) -> None:
    assert is_counted(restarts) is counted


def test_bytes_that_differ_from_restart_to_restart_are_sampled() -> None:
    sizes = [100, 104, 96, 101, 99, 103, 97, 100, 102, 98, 105, 95]
    restarts = [measured(record(figure(100)), record(figure(size)), n=1)[0] for size in sizes]
    verdict = only(restarts)
    assert verdict.shown in {"SAME", "INCONCLUSIVE"}
    assert "[" in verdict.figure


def test_seconds_of_another_name_are_compared_beside_turns() -> None:
    restarts = [
        Restart(
            started="AB",
            duets={"step_s": duet(1.0)},
            before=record(figure(1.0, "s")),
            after=record(figure(3.0, "s")),
        )
    ] * 12
    assert [verdict.shown for verdict in verdicts(restarts, ASKED)] == ["SAME", "SLOWER"]


@pytest.mark.parametrize("after", [record(), record(losses=[[1.0, 2.0]])])
def test_losses_that_one_side_lost_fail(after: dict[str, Any]) -> None:
    before = record(losses=[[1.0, 2.0], [1.0, 2.0]])
    for one, other in ((before, after), (after, before)):
        (verdict,) = verdicts(measured(one, other, n=1), ASKED)
        assert verdict.outcome is Outcome.FAIL
        assert "trained from other seeds" in verdict.figure


def test_a_single_seed_is_no_answer() -> None:
    one = record(losses=[[1.0, 2.0]])
    found = verdicts(measured(one, one, n=1), ASKED)
    assert {verdict.outcome for verdict in found} == {Outcome.INCONCLUSIVE}


@given(
    st.lists(st.floats(0.5, 2.0), min_size=12, max_size=30),
    st.floats(1.0, 1.5),
)
def test_a_verdict_never_contradicts_its_own_estimate(ratios: list[float], shift: float) -> None:
    verdict = only(timed([ratio * shift for ratio in ratios]))
    value = float(verdict.figure.partition("x")[0])
    if verdict.shown == "SLOWER":
        assert value > 1.05
    elif verdict.shown == "FASTER":
        assert value < 1 / 1.049
    elif verdict.shown == "SAME":
        assert abs(math.log(value)) <= math.log1p(0.051)
    else:
        assert verdict.outcome is Outcome.INCONCLUSIVE


@given(st.lists(st.floats(0.5, 2.0), min_size=12, max_size=12))
def test_exchanging_the_sides_exchanges_the_words(ratios: list[float]) -> None:
    words = [only(timed(each)).shown for each in (ratios, [1 / ratio for ratio in ratios])]
    exchanged = {"SLOWER": "FASTER", "FASTER": "SLOWER"}
    assert words[1] == exchanged.get(words[0], words[0])
