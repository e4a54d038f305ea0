"""Worlds that a training can be made and stepped in: with all ranks, alone, or detached from them.

The default process group is another one in each, so that a training sees it in whatever it asks
of torch.distributed. The ranks of a session meet in a group of their own, which stays as it is.
What that needs of torch's private parts is in here and in `fake_ranks`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from itertools import repeat
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from perfsuite.devices.notices import collectives_started
from perfsuite.devices.ranks import Ranks
from perfsuite.measuring.fake_ranks import FakeRanksError, instant
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError

Value = TypeVar("Value")

_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
"""What a training may read of its environment, as in a session of one rank."""

_make_mesh = DeviceMesh.__init__


class World(StrEnum):
    """Whom a training talks to."""

    REAL = "real"
    """All ranks, as it is."""
    ALONE = "alone"
    """Itself: it is rank 0 of 1."""
    DETACHED = "detached"
    """All ranks, so it seems: it has its rank among them, but nothing that it tells goes anywhere.

    A collective returns at once, so that a step takes the rank's own time, in which it waits for
    nobody. Its values are wrong: nothing is averaged.
    """


class Worlds:
    """The worlds of a session of several ranks; every method is called by all of them.

    Raises:
        TrainingError: this torch cannot change the default process group.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._environment = {name: os.environ.get(name) for name in _ALONE}
        self._groups: dict[World, Any] = {World.REAL: dist.group.WORLD}
        try:
            backend = instant()
            # Only whose group it is meets in making it, be there thousands of ranks.
            own = dist.new_group([ranks.seat.rank], use_local_synchronization=True)
            self._groups[World.ALONE] = own
            self._groups[World.DETACHED] = dist.new_group(backend=backend)
            self.enter(World.ALONE)
            told = dist.get_rank(), dist.get_world_size()
            if told != (0, 1):
                raise FakeRanksError(f"rank 0 of 1 is rank {told[0]} of {told[1]}")
        except Exception as error:
            self.close()
            if isinstance(error, AttributeError | TypeError | FakeRanksError):
                raise TrainingError(_cannot(str(error))) from None
            raise
        self.enter(World.REAL)

    def enter(self, world: World) -> None:
        """Be in a world from now on."""
        dist.group.WORLD = self._groups[world]
        make: Any = _make_mesh_apart if world is World.DETACHED else _make_mesh
        DeviceMesh.__init__ = make  # type: ignore[method-assign]  # until another world is entered
        for name, value in self._environment.items():
            if world is World.ALONE:
                os.environ[name] = _ALONE[name]
            elif value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @contextmanager
    def within(self, world: World) -> Iterator[None]:
        """Be in a world within, and with all ranks afterwards."""
        self.enter(world)
        try:
            yield
        finally:
            self.enter(World.REAL)

    def attempt(self, world: World, what: str, do: Callable[[], Value]) -> Value:
        """Do something in a world, which may go wrong on one rank: then all raise TrainingError.

        Or the others would wait for it.
        """
        why, value = "", None
        with self.within(world):
            try:
                value = do()
            except Exception as error:
                why = str(error).strip().partition("\n")[0] or type(error).__name__
        for rank, told in enumerate(self.ranks.each(why)):
            if told:
                raise TrainingError(f"rank {rank} cannot {what} ({world}): {told}")
        return value  # type: ignore[return-value]  # it has one where nothing was raised

    def step_apart(self, arm: Arm) -> None:
        """Take a step of an arm that is settled in the detached world.

        Raises:
            TrainingError: it cannot be taken, or it does not stay by itself.
        """

        def step() -> None:
            batches = arm.take(1)
            before = _collectives_of_all_groups()
            arm.step(*batches)
            if _collectives_of_all_groups() != before:
                raise TrainingError(
                    "it still talks to the other ranks, by a group that was made elsewhere: make"
                    " groups and meshes in the function that makes the training"
                )

        self.attempt(World.DETACHED, "take a step by itself", step)

    def settled(self, arm: Arm, world: World, label: str) -> Arm:
        """Return an arm that takes its steps in the world that it was made in.

        It is there from when its batches are taken, which is outside of whatever is timed, until
        another arm takes its own. Alone is rank 0; the others do nothing, and wait until it is
        done.
        """
        batches = arm.batches
        if world is World.ALONE and not self.ranks.seat.leads:
            # They made it all the same: torch counts groups, alike in all ranks.
            nothing = torch.zeros((), device=arm.device)
            batches = repeat(None)
            arm = replace(arm, step=lambda _: nothing, written=None, parts={})

        def entering() -> Iterator[Any]:
            # First, so that an epoch that begins anew reads its loader in this world, too.
            while True:
                self.enter(world)
                yield next(batches)

        of_one = world is World.ALONE
        return replace(arm, batches=entering(), of_one_rank=of_one, label=label)

    def close(self) -> None:
        """Be with all ranks again, and end the other groups."""
        self.enter(World.REAL)
        for world in [each for each in self._groups if each is not World.REAL]:
            dist.destroy_process_group(self._groups.pop(world))


@contextmanager
def worlds_of(ranks: Ranks) -> Iterator[Worlds]:
    """Yield the worlds of a session's ranks, which end with it."""
    found = Worlds(ranks)
    try:
        yield found
    finally:
        found.close()


def _make_mesh_apart(mesh: DeviceMesh, *args: Any, **named: Any) -> None:
    """Make a mesh that is equal to no real one.

    Meshes of other groups are equal otherwise, and DTensor, which remembers by meshes what comes
    of an operation, would give the results of a detached training the real mesh.
    """
    _make_mesh(mesh, *args, **named)
    if hasattr(mesh, "_thread_id"):  # where it is not, `step_apart` tells
        mesh._thread_id, mesh._hash = -1, None


def _collectives_of_all_groups() -> int:
    """Return how many collectives this process started; instant ones are not counted."""
    return sum(map(collectives_started, dist.distributed_c10d._world.pg_map))


def _cannot(why: str) -> str:
    return f"torch {torch.__version__} cannot change the default process group: {why}"
