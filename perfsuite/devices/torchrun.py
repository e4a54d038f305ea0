"""Which rank of how many this process is, as torchrun says in its environment. Without torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLES = frozenset(
    [
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"),
    ]
)
"""What torchrun says to a rank, and to no process that the rank starts."""


class RankError(RuntimeError):
    """Ranks that cannot work together; the message says which, and why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The place of a process among those of one training; alone unless torchrun started it."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0  # among those of its node, and the index of its accelerator
    local_ranks: int = 1

    @property
    def nodes(self) -> int:
        """How many machines there are, if each has as many ranks."""
        return max(1, self.ranks // self.local_ranks)

    @property
    def leads(self) -> bool:
        """Whether it speaks, decides and writes for all."""
        return self.rank == 0


def seat(environment: Mapping[str, str] = os.environ) -> Seat:
    """Return this process's seat; RankError where what the environment says is no seat."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return Seat()
    names = {
        "rank": ("RANK", None),
        "ranks": ("WORLD_SIZE", None),
        "local_rank": ("LOCAL_RANK", "0"),
        "local_ranks": ("LOCAL_WORLD_SIZE", environment.get("WORLD_SIZE")),
    }
    found: dict[str, int] = {}
    for field, (name, default) in names.items():
        value = environment.get(name, default)
        if value is None or not value.isdecimal():
            raise RankError(
                f"{name} is {value!r}, and has to be a whole number: start the ranks with torchrun,"
                " which says it to each of them"
            )
        found[field] = int(value)
    if found["rank"] >= found["ranks"]:
        raise RankError(f"RANK is {found['rank']} of WORLD_SIZE {found['ranks']}: they start at 0")
    return Seat(**found)
