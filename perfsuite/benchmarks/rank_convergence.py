"""Does it train on many ranks as on one?"""

import pytest

from perfsuite import Bench, Precision, train_rank_pairs


@pytest.mark.many_ranks
@pytest.mark.one_tree
def test_rank_convergence(perf: Bench) -> None:
    """All ranks and one alone, over the same global batches from the same weights, lose alike."""
    perf.require_learnable()
    train_rank_pairs(perf, Precision.fp32)  # the ranks are judged here, and not a precision
