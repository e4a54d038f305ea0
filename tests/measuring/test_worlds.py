"""Two real ranks in three worlds, and what is judged there; no verdict hangs on a real timing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch.distributed as dist

from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.rank_times import RankTimes
from perfsuite.judging.scaling import Scaling
from perfsuite.measuring import fake_ranks
from perfsuite.measuring.worlds import Worlds
from perfsuite.training.batches import TrainingError

SCRIPT = Path(__file__).with_name("ranks_at_work.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
RANKS = 2
CANNOT = "cannot change the default process group: "


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("ranks") / "found.json"
    done = subprocess.run(
        [*TORCHRUN, str(SCRIPT), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


@pytest.mark.slow
def test_each_world_shows_a_training_other_ranks_while_those_of_the_session_meet_as_ever(
    found: dict[str, Any],
) -> None:
    seen = found["worlds"]["seen"]
    # Rank, how many there are, the sum of a one of each, and both by the environment.
    assert seen["real"]["each"] == [[0, 2, 2, "0", "2"], [1, 2, 2, "1", "2"]]
    assert seen["alone"]["each"] == [[0, 1, 1, "0", "1"]] * RANKS
    assert seen["detached"]["each"] == [[0, 2, 1, "0", "2"], [1, 2, 1, "1", "2"]]
    assert found["worlds"]["afterwards"] == RANKS


@pytest.mark.slow
def test_what_goes_wrong_on_one_rank_is_told_by_all(found: dict[str, Any]) -> None:
    assert found["worlds"]["failed"] == ["rank 1 cannot make it (detached): no"] * RANKS


@pytest.mark.slow
def test_a_norm_of_sharded_gradients_is_told_to_nobody_where_a_step_is_taken_by_itself(
    found: dict[str, Any],
) -> None:
    assert found["worlds"]["clipped"] == [""] * RANKS


@pytest.mark.slow
def test_a_step_that_talks_to_others_by_a_group_of_elsewhere_is_said_so_by_all_ranks(
    found: dict[str, Any],
) -> None:
    said = found["worlds"]["a group of elsewhere"]
    told = "rank 0 cannot take a step by itself (detached): it still talks to the other ranks"
    assert [each.partition(", by a group")[0] for each in said] == [told] * RANKS


@pytest.mark.slow
@pytest.mark.parametrize(("wrap", "least"), [("DDP", 1), ("FSDP2", 2)])
def test_the_collectives_of_a_step_are_repeated_by_all_ranks_alike(
    found: dict[str, Any], wrap: str, least: int
) -> None:
    one, other = found["worlds"][f"replayed {wrap}"]
    assert one == other >= least


@pytest.mark.slow
def test_turns_of_ranks_are_kept_in_their_shape_and_judged_by_their_gates(
    found: dict[str, Any],
) -> None:
    turns = found["turns"]
    times = msgspec.convert(turns["raw"]["rank_times"], RankTimes)
    assert [each.rank for each in times.ranks] == [0, 1]
    assert times.comm_s is not None
    assert min(times.comm_s, times.compute_s, times.step_s) > 0
    weak, strong = msgspec.convert(turns["raw"]["scaling"], list[Scaling])
    assert (weak.how, strong.how, weak.ranks) == ("weak", "strong", RANKS)
    assert weak.samples is not None
    assert strong.samples == RANKS * weak.samples
    # ABBA: one alone has no row of ranks.
    assert turns["ranks in"] == [0, RANKS, RANKS, 0]
    arms = {name: turns["turns"][name]["arms"] for name in ("duet", "duet strong")}
    assert arms["duet"] == ["one alone, weak", "all ranks"]
    assert arms["duet strong"] == ["one alone, strong", "all ranks"]
    steps = [block["steps"] for block in turns["turns"]["duet strong"]["blocks"][:4]]
    assert steps == [5 // RANKS, 5, 5, 5 // RANKS]
    gates = ["slow_ranks", "communication", "weights_equal"]
    gates += ["strong_scaling", "weak_scaling", "weights_equal"]
    assert [gate for gate, _ in turns["said"]] == gates
    # They drift apart where each is by itself, and nobody looks at those.
    assert {said for gate, said in turns["said"] if gate == "weights_equal"} == {"PASS"}
    assert turns["metrics"] == ["compute_s"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "outcome"),
    [
        ("DDP", "PASS"),
        ("FSDP2", "PASS"),
        ("averaged by hand", "PASS"),
        ("summed by hand", "FAIL"),
        ("not averaged", "FAIL"),
        ("a summed loss", "FAIL"),
    ],
)
def test_ranks_that_train_otherwise_than_one_alone_are_red(
    found: dict[str, Any], training: str, outcome: str
) -> None:
    told = found["pairs"][training]
    assert told["outcome"] == outcome, told["said"]


@pytest.mark.slow
def test_batches_that_cannot_be_joined_are_told_by_all_ranks(found: dict[str, Any]) -> None:
    one, other = found["other shapes"]
    assert one == other
    told = "rank 0 cannot train on the batches of all ranks (alone): Sizes of tensors must match"
    assert one.startswith(told)


@pytest.mark.slow
def test_batch_norm_is_named_where_it_may_be_why(found: dict[str, Any]) -> None:
    told = found["pairs"]["BatchNorm"]
    assert told["outcome"] != "PASS"
    assert "BatchNorm normalises by a rank's own batch" in told["said"]
    assert "BatchNorm" not in found["pairs"]["not averaged"]["said"]


def test_a_torch_that_cannot_change_the_default_group_is_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> str:
        raise fake_ranks.FakeRanksError("no fake group")

    monkeypatch.setattr("perfsuite.measuring.worlds.instant", gone)
    with one_rank(), pytest.raises(TrainingError, match=f"{CANNOT}no fake group"):
        Worlds(Ranks(Seat()))


def test_worlds_that_cannot_be_made_leave_no_group_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    with one_rank():
        with pytest.raises(TrainingError, match=f"{CANNOT}rank 0 of 1 is rank 0 of 3"):
            Worlds(Ranks(Seat()))
        assert list(dist.distributed_c10d._world.pg_map) == [dist.group.WORLD]


@contextmanager
def one_rank() -> Iterator[None]:
    """Have a default group of one, which is the default one at the end, too."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]  # torch exports it untyped
    try:
        yield
        assert dist.get_backend() == "gloo"
    finally:
        dist.destroy_process_group()
