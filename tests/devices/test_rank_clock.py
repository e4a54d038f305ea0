"""One clock and one sensor for all ranks, which are made up here: each tells what it is given."""

from typing import Any

import pytest

from perfsuite.devices.cpu import HostClock
from perfsuite.devices.device import Clock
from perfsuite.devices.rank_clock import RankClock, RankSensor
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import State
from perfsuite.measuring.timing import block_of


class MadeUp(Ranks):
    """Rank 0 of several, the others of which tell what the test says."""

    def __init__(self, *others: Any) -> None:
        super().__init__(Seat(ranks=1 + len(others), local_ranks=1 + len(others)))
        self._others = others
        self.met = 0

    def each(self, value: Any) -> list[Any]:
        return [value, *self._others]

    def numbers(self, *own: float) -> list[tuple[float, ...]]:
        return [own, *map(self._number, self._others)]

    def agreed(self, value: Any, *, of: int = 0) -> Any:
        return [value, *self._others][of]

    @staticmethod
    def _number(told: Any) -> tuple[float]:
        """Return the time that another took, or how many reasons held it back."""
        if told and isinstance(told[0], str):
            return (len(told),)
        wall_s, device_s, *_ = told
        return (wall_s if device_s is None else device_s,)

    def meet(self) -> None:
        self.met += 1


def ticking(*times_s: float) -> Clock:
    return HostClock(iter(times_s).__next__)


def test_a_block_takes_as_long_as_the_slowest_rank_and_keeps_each_one_s() -> None:
    clock = RankClock(ticking(0.0, 10.0, 11.0, 12.0, 12.0), MadeUp((6.0, None, [2.0, 4.0], None)))
    clock.start()
    clock.lap()
    clock.lap()
    block = block_of(clock, steps=2)
    assert block.step_s == 3.0
    assert block.ranks_s == (1.0, 3.0)
    assert block.typical_s == 2.0  # the slowest rank's too


def test_where_the_device_has_a_clock_it_decides_who_is_slowest() -> None:
    told = (0.5, 0.9, [0.9], 0.1)
    clock = RankClock(ticking(0.0, 0.0, 0.7), MadeUp((0.9, 0.2, [0.2], 0.3), told))
    clock.start()
    assert clock.stop() == (0.5, 0.9)
    assert clock.ranks_s() == (0.7, 0.2, 0.9)
    assert clock.host_s() == 0.1


def test_no_rank_begins_before_all_have_come() -> None:
    made_up = MadeUp((1.0, None, [], None))
    own = ticking(0.0, 5.0, 6.0)
    clock = RankClock(own, made_up)
    assert made_up.met == 0
    clock.start()  # idle before all meet, and begun once they have
    assert made_up.met == 1
    assert clock.stop() == (1.0, None)


class Reading:
    """A sensor that was held back by what it is given."""

    def __init__(self, *reasons: str) -> None:
        self._reasons = reasons

    def read(self) -> State:
        return State(load_1min=1.0)

    def blind(self) -> str | None:
        return None

    def held_back(self, before: State, after: State) -> tuple[str, ...]:  # noqa: ARG002  # told
        return self._reasons


def test_what_held_back_any_rank_held_back_the_block_and_is_told_with_its_rank() -> None:
    sensor = RankSensor(Reading("heat"), MadeUp(("power",), ("heat",)))
    told = ("heat (rank 0)", "heat (rank 2)", "power (rank 1)")
    assert sensor.held_back(State(), State()) == told
    assert sensor.read() == State(load_1min=1.0)
    assert sensor.blind() is None


def test_of_many_ranks_that_are_held_back_it_is_told_how_many_they_are() -> None:
    sensor = RankSensor(Reading("power"), MadeUp(*[("power",)] * 9, ("heat",)))
    assert sensor.held_back(State(), State()) == ("power (10 ranks)", "heat (rank 10)")


def test_of_a_machine_are_as_many_ranks_as_it_has() -> None:
    numbers = MadeUp((2.0, None), (3.0, None), (4.0, None))
    numbers.seat = Seat(rank=2, ranks=4, local_rank=0, local_ranks=2)
    assert numbers.of_this_node(1.0) == [3.0, 4.0]


def test_alone_nobody_is_asked() -> None:
    alone = Ranks()
    assert (len(alone), alone.many, alone.each(3), alone.agreed(4)) == (1, False, [3], 4)
    alone.meet()


@pytest.mark.parametrize("others", [1, 7])
def test_there_are_as_many_as_are_said(others: int) -> None:
    assert len(MadeUp(*[None] * others)) == 1 + others
