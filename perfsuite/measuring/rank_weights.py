"""Weights on all ranks: after a training they have to be equal, bit for bit, unless sharded."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from perfsuite.devices.ranks import Ranks
from perfsuite.judging.gates import Verdict, equal_on_ranks, not_gated
from perfsuite.measuring.timing import Timeable
from perfsuite.training.arm import Arm, NotShownError
from perfsuite.training.batches import named_tensors
from perfsuite.training.parallel import local_of, sharded_weights

GATE = "weights_equal"
_MOST_NAMED = 8

Each = Callable[[Any], list[Any]]
"""Tells all ranks a value; returns what each gave, by rank, as `Ranks.each`."""


class RankWeights:
    """Looks at the weights of arms that ranks trained together, and has one verdict on all."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._verdicts: list[Verdict] = []  # one an arm

    def watched(self, arm: Arm) -> Arm:
        """Return the arm; where there are several ranks, it is looked at when it has trained."""
        if self._ranks.many:
            arm.watcher = self.look
        return arm

    def look_at(self, *timed: Timeable) -> None:
        """Look at those that are arms, and that are to be looked at."""
        for each in timed:
            if isinstance(each, Arm):
                each.has_trained()

    def look(self, arm: Arm) -> None:
        """Compare an arm's weights over ranks: by their hashes, which are all that is told."""
        weights: dict[str, Tensor] = {}
        why = None
        try:
            weights = shared_weights(arm)
        except NotShownError as error:
            why = str(error)
        # Together, or who looks would meet who does not somewhere else.
        if whys := [each for each in self._ranks.each(why) if each is not None]:
            self._verdicts.append(not_gated(GATE, "not looked at", whys[0]))
            return
        differing = differences_of_ranks(weights, self._ranks.each)
        name = blamed(differing, arm.accepts)
        wrong = None if name is None else differing[name]
        meant = arm.accepts.get(wrong or "", arm.accepts.get(name or ""))
        if wrong is not None and meant is not None:
            self._verdicts.append(not_gated(GATE, wrong, meant))
            return
        found = equal_on_ranks(GATE, wrong, weights=len(weights), ranks=len(self._ranks))
        named = f"{arm.label}: {found.figure}"
        self._verdicts.append(found if wrong is None else replace(found, figure=named))

    def verdicts(self) -> list[Verdict]:
        """Return the worst verdict on the arms, if there were any."""
        return sorted(self._verdicts, key=lambda verdict: verdict.outcome.rank)[:1]


def shared_weights(arm: Arm) -> dict[str, Tensor]:
    """Return the weights of which each rank keeps a copy, by name.

    Raises:
        NotShownError: there is no model, or all of its weights are sharded.
    """
    sharded = sharded_weights(arm.models)
    named = arm.named_parameters().items()
    weights = {name: weight.detach() for name, weight in named if id(weight) not in sharded}
    if not weights:
        raise NotShownError("all weights are sharded: no rank has what another one has")
    return weights


def differences_of_ranks(named: Mapping[str, Tensor], each_of: Each) -> dict[str, str]:
    """Return the tensors that are not the same on all ranks, and where; all ranks ask."""
    own = {name: hash_of(tensor) for name, tensor in named.items()}
    if len(set(each_of(blake2b(repr(own).encode()).hexdigest()))) == 1:
        return {}
    told = each_of(own)
    found: dict[str, str] = {}
    for name in {name: None for each in told for name in each}:
        others = [rank for rank, each in enumerate(told) if each.get(name) != told[0].get(name)]
        if others:
            found[name] = f"{name} of {_named(others)} is not rank 0's"
    return found


def blamed(differing: Mapping[str, str], accepts: Mapping[str, str]) -> str | None:
    """Return the first name that is not accepted; where all are, the first; None of none.

    It is accepted by its name, or by what is said of it.
    """
    red = [name for name, how in differing.items() if name not in accepts and how not in accepts]
    return next(iter(red or differing), None)


def hash_of(value: object) -> str:
    """Return a hash of the bytes of all tensors in a value, with their shapes and dtypes.

    Of those that are laid over ranks, this rank's part.
    """
    found = blake2b(digest_size=16)
    for name, tensor in named_tensors(value, ""):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = local_of(tensor.detach()).to_dense().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _named(ranks: list[int]) -> str:
    told = ", ".join(map(str, ranks[:_MOST_NAMED]))
    more = f" and {len(ranks) - _MOST_NAMED} more" * (len(ranks) > _MOST_NAMED)
    return f"rank{'s' * (len(ranks) > 1)} {told}{more}"
