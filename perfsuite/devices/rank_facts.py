"""What is told of ranks beside their times: how they talk, and that their machines are alike."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import RankError

_SETTINGS = ("NCCL_", "TORCH_NCCL_", "GLOO_", "TORCH_GLOO_")
_NAMES_A_HOST = ("NCCL_COMM_ID", "NCCL_HOSTID")  # which is nobody's business
_NAMED = 3
"""Ranks of one kind that are named, so that a line stays one."""


def settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what the environment says of NCCL and gloo, by variable; no name of a host."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_SETTINGS) and name not in _NAMES_A_HOST
    }


def talk() -> dict[str, Any]:
    """Return how the ranks of the default process group talk: with what, and how it is set.

    It stands among the versions of a run, so that one that changed is told as a cause.
    """
    found: dict[str, Any] = {"collectives": dist.get_backend()}
    if "nccl" in dist.get_backend_config():
        found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    return found | settings()


def shared_facts(
    ranks: Ranks, *, alike: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the facts of all ranks; one in which they differ says so, and which rank has what.

    Raises:
        RankError: they differ in one of those that have to be `alike`.
    """
    told = ranks.each((dict(alike), dict(facts)))
    required = _differing([required for required, _ in told])
    if required:
        what = "; ".join(f"{name}: {values}" for name, values in required.items())
        raise RankError(
            f"the ranks are not alike, and a time of theirs would be of no machine: {what};"
            " start them on like machines, from one environment"
        )
    counts = {"ranks": len(ranks), "nodes": ranks.seat.nodes}
    return {**facts, **_differing([own for _, own in told]), **counts}


def _differing(told: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what ranks tell otherwise than others, by name: each value, and whose it is."""
    found = {}
    for name in dict.fromkeys(name for each in told for name in each):
        whose: dict[str, list[int]] = defaultdict(list)
        for rank, each in enumerate(told):
            whose[str(each.get(name))].append(rank)
        if len(whose) > 1:
            found[name] = ", ".join(f"{value} on {_which(them)}" for value, them in whose.items())
    return found


def _which(ranks: Sequence[int]) -> str:
    named = ", ".join(map(str, ranks[:_NAMED]))
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"rank {named}" if len(ranks) == 1 else f"ranks {named}{more}"
