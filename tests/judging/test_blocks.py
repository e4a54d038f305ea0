"""A block as a run keeps it: each rank's time, or of many ranks how they lie."""

from dataclasses import asdict

import msgspec
import pytest

from perfsuite.judging.blocks import MOST_RANKS, Block


def block(ranks: int) -> Block:
    """Return a block in which rank 1 is the slowest."""
    times_s = tuple(2.0 if rank == 1 else 1.0 + rank / 1e6 for rank in range(ranks))
    return Block(steps=3, wall_s=2.0, ranks_s=times_s)


@pytest.mark.parametrize("ranks", [0, 2, MOST_RANKS])
def test_of_few_ranks_each_ones_time_is_kept(ranks: int) -> None:
    kept = block(ranks).kept()
    assert kept == asdict(block(ranks))
    assert msgspec.convert(msgspec.to_builtins(kept), Block) == block(ranks)


def test_of_many_ranks_it_is_kept_how_they_lie_and_which_is_the_slowest() -> None:
    kept = block(4096).kept()
    assert kept["ranks_s"] == ()
    assert kept["in_short"] == {
        "ranks": 4096,
        "lowest_s": 1.0,
        "median_s": pytest.approx(1.002, abs=1e-4),
        "highest_s": 2.0,
        "slowest": 1,
    }
    sizes = [len(msgspec.json.encode(block(ranks).kept())) for ranks in (65, 4096)]
    assert sizes[1] - sizes[0] < 20


def test_a_block_that_an_earlier_perfsuite_kept_is_read() -> None:
    assert msgspec.convert({"steps": 3, "wall_s": 2.0}, Block).in_short is None
