"""Is one rank slower than the others, and how long do they wait for what they tell each other?"""

import pytest

from perfsuite import Bench, take_rank_turns


@pytest.mark.many_ranks
@pytest.mark.one_tree
def test_rank_times(perf: Bench) -> None:
    """All ranks together and each by itself take turns, in the precision one would train in."""
    take_rank_turns(perf, perf.machine.device.fast_precision)
