"""Two real ranks, over gloo: each fault is red and its healthy twin green, and both ranks say so.

Planted here and not in the catalogue of tests/sabotage, whose rows are one process each: all of
these run in one pair of processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks import GIVE_UP_S

import perfsuite
from perfsuite.devices.precision import Precision
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes import registry
from perfsuite.probes.across_ranks import ACROSS_RANKS
from perfsuite.probes.probe import Found, Probe
from perfsuite.probes.rank_gradients import _Compared, _judged
from perfsuite.training.arm import Arm

TESTS = Path(__file__).parents[1]
LAUNCHED = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return what each case of `two_ranks` said; the same on both ranks."""
    out = tmp_path_factory.mktemp("ranks") / "told.json"
    paths = map(str, (TESTS, Path(perfsuite.__file__).parents[1]))
    subprocess.run(
        [sys.executable, *LAUNCHED, str(TESTS / "two_ranks.py"), str(out)],
        check=True,
        timeout=GIVE_UP_S + 20,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    first, second = json.loads(out.read_text(encoding="utf-8"))
    assert first == second
    found: dict[str, object] = first
    return found


RED = {
    "drifting": "weights_equal: module.0.weight of rank 1 is not rank 0's",
    "own buffers": "buffers_equal: module.1.running_mean of rank 1 is not rank 0's",
    "own buffers, half meant": "buffers_equal: module.1.running_var of rank 1 is not rank 0's",
    "own seeds": "started_alike: 0.weight of rank 1 is not rank 0's",
    "same samples": "shares_differ: the first batches of ranks 0 and 1 are the same",
    "no_sync": "gradients_averaged: gradients are 0.",
    "summed": "gradients_averaged: gradients are 2 times the mean over ranks: the sum over 2 ranks",
    "divided twice": "gradients_averaged: gradients are 0.5 times the mean over ranks: divided",
    "not averaged": "gradients_averaged: rank 0 is given no gradient of rank 1's batch",
    "scaler before averages": "scalers_agree: rank 0 took a step that overflowed on rank 1",
}
GREEN = (
    "buffers under fsdp2",
    "one seed",
    "clipped",
    "synchronising",
    "of experts",
    "averaged by hand",
    "averages before scaler",
    "scaler under ddp",
    "scaler under fsdp2",
)


@pytest.mark.slow
@pytest.mark.parametrize("case", RED)
def test_a_fault_of_ranks_is_red(case: str, told: dict[str, str]) -> None:
    assert told[case].startswith(f"FAIL probe {RED[case]}")


@pytest.mark.slow
@pytest.mark.parametrize("case", GREEN)
def test_its_healthy_twin_is_green(case: str, told: dict[str, str]) -> None:
    assert told[case].startswith("PASS probe ")


@pytest.mark.slow
def test_ranks_meet_again_once_one_of_them_has_left_a_probe(told: dict[str, str]) -> None:
    assert told["one leaves"] == (
        "NOT GATED probe one_leaves: not looked at (there is nothing to see)"
    )


@pytest.mark.slow
def test_a_clip_is_no_second_division_whatever_its_factor(told: dict[str, str]) -> None:
    healthy = "PASS probe gradients_averaged: gradients are 0.5 times the mean over ranks"
    assert told["clipped by half"].startswith(healthy)


@pytest.mark.slow
def test_ranks_with_the_same_samples_do_not_show_an_average(told: dict[str, str]) -> None:
    assert told["same gradients"].startswith("NOT GATED probe gradients_averaged: not looked at")


@pytest.mark.slow
def test_what_a_training_accepts_of_its_ranks_is_not_gated(told: dict[str, str]) -> None:
    assert told["own buffers, and meant"].startswith("NOT GATED probe buffers_equal: module.1.")
    assert told["own buffers, and meant"].endswith("(each has its own domain)")


@pytest.mark.slow
def test_weights_that_fsdp_shards_are_not_looked_at(told: dict[str, str]) -> None:
    assert told["weights under fsdp"].startswith(
        "NOT GATED probe weights_equal: not looked at (all"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "open_"),
    [
        ("ddp", ()),
        ("fsdp2", ("started_alike", "weights_equal")),
        ("tensor parallel", ("shares_differ", "gradients_averaged")),
    ],
)
def test_a_healthy_step_of_ranks_passes_all_probes(
    how: str, open_: tuple[str, ...], told: dict[str, list[str]]
) -> None:
    gates = {each.partition(":")[0] for each in told[f"everything {how}"]}
    not_looked_at = ("memory_slope", "scalers_agree", *open_)
    assert gates == {f"NOT GATED probe {name}" for name in not_looked_at}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_ranks_train_as_one_process_does_with_all_their_samples(
    how: str, told: dict[str, float]
) -> None:
    assert told[f"as one {how}"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_what_ranks_train_is_copied_put_back_and_perturbed(
    how: str, told: dict[str, object]
) -> None:
    assert told[f"put back {how}"] is None
    assert told[f"perturbed {how}"] is True


@pytest.mark.slow
def test_a_sample_keeps_the_same_for_backward_where_weights_are_sharded(
    told: dict[str, float],
) -> None:
    assert told["kept fsdp2"] == told["kept ddp"] > 0


@pytest.mark.slow
def test_weights_are_held_against_each_other_after_a_training(told: dict[str, str]) -> None:
    assert told["after ddp"].startswith("PASS weights_equal: 6 weights are equal on 2 ranks")
    assert told["after drifting"].startswith("FAIL weights_equal: fp32: module.0.weight of rank 1")
    assert told["after tensor parallel"].startswith("PASS weights_equal: 1 weights are equal")
    assert told["after fsdp2"].startswith("NOT GATED weights_equal: not looked at")


@pytest.mark.parametrize(
    ("factors", "apart", "figure", "good"),
    [
        ((1.0, 1.0), 0.001, "gradients are 1 times the mean over ranks", True),
        ((0.01, 0.01), 0.001, "gradients are 0.01 times the mean over ranks", True),  # clipped
        (
            (4.0,) * 4,
            0.001,
            "gradients are 4 times the mean over ranks: the sum over 4 ranks",
            False,
        ),
        ((3.0,) * 4, 0.001, "gradients are 3 times the mean over ranks", False),
        ((1.0, 1.0), 0.3, "gradients are 0.3 of themselves off the mean over ranks", False),
        (
            (1.0, 1.0),
            float("nan"),
            "gradients are nan of themselves off the mean over ranks",
            False,
        ),
    ],
)
def test_gradients_are_judged_by_their_factor_to_the_mean(
    factors: tuple[float, ...], apart: float, figure: str, good: bool
) -> None:
    found = _Compared(1.0, [(factor, apart) for factor in factors])
    assert _judged(found, None, 0.1) == Found(figure, good)


@pytest.mark.parametrize(
    ("length", "factor", "good"),
    [
        (1 / 8, 1 / 4, False),  # of lower gradients too
        (1 / 8, 1.0, True),  # clipped where they were higher
        (1.0, 1 / 4, None),  # they could not be lowered
    ],
)
def test_a_second_division_is_told_from_a_clip_by_lower_gradients(
    length: float, factor: float, good: bool | None
) -> None:
    found, again = _Compared(1.0, [(1 / 4, 0.0)] * 4), _Compared(length, [(factor, 0.0)] * 4)
    assert _judged(found, again, 0.1).good is good


class Telling(Ranks):
    """Two ranks, of which the other one finds a fault."""

    def __init__(self) -> None:
        super().__init__(Seat(ranks=2, local_ranks=2))

    def each(self, value: Any) -> list[Any]:
        fault = Verdict(gate="probe look", outcome=Outcome.FAIL, figure="none", threshold="")
        return [value, fault]


def test_a_fault_that_one_rank_finds_is_told_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ranks", Telling)

    def look(*_: object) -> Found:
        return Found("all are there", good=True)

    arm = Arm(step=float, batches=iter(()), device=torch.device("cpu"))
    verdict = registry.run_probe(Probe(look, "all", ""), lambda _: arm, Precision.fp32, None)
    assert str(verdict) == "FAIL probe look: rank 1: none"


def test_ranks_are_looked_across_only_where_there_are_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert registry.probes_here() == registry.PROBES
    monkeypatch.setattr(registry, "ranks", Telling)
    assert registry.probes_here() == registry.PROBES + ACROSS_RANKS
