"""A process's seat among the ranks, by what torchrun says in its environment."""

import pytest

from perfsuite.devices.torchrun import RankError, Seat, seat

OF_TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}


def test_without_torchrun_a_process_is_alone_and_leads() -> None:
    assert seat({}) == Seat()
    assert seat({"WORLD_SIZE": "1"}) == seat({"RANK": "3"}) == Seat()  # somebody else's
    assert Seat().leads
    assert Seat().nodes == 1


def test_torchrun_says_which_rank_it_is_and_on_how_many_machines() -> None:
    found = seat(OF_TORCHRUN)
    assert found == Seat(rank=9, ranks=16, local_rank=1, local_ranks=8)
    assert found.nodes == 2
    assert not found.leads


def test_who_says_nothing_of_nodes_has_one() -> None:
    assert seat({"RANK": "0", "WORLD_SIZE": "4"}).nodes == 1


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ({"RANK": None}, "RANK is None"),
        ({"RANK": "one"}, "RANK is 'one'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"RANK": "16"}, "RANK is 16 of WORLD_SIZE 16: they start at 0"),
    ],
)
def test_what_is_no_seat_is_refused_by_name(lacking: dict[str, str | None], said: str) -> None:
    told = {name: value for name, value in (OF_TORCHRUN | lacking).items() if value is not None}
    with pytest.raises(RankError, match=f"^{said}"):
        seat(told)
