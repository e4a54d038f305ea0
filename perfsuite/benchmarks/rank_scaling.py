"""How much more do all ranks do than one of them alone?"""

import pytest

from perfsuite import Bench, take_scaling_turns


@pytest.mark.many_ranks
@pytest.mark.one_tree
def test_rank_scaling(perf: Bench) -> None:
    """One takes turns with all: with a batch of a rank's (weak), and with all of it (strong)."""
    take_scaling_turns(perf, perf.machine.device.fast_precision)
