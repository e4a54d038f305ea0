"""What do ranks tell each other in a step? Counted on ranks that are not there."""

from dataclasses import asdict

import pytest

from perfsuite import Bench, FakeRanksError, Precision, count_collectives, not_gated


@pytest.mark.one_rank
def test_collectives(perf: Bench, precision: Precision) -> None:
    """Number, kind and bytes of collectives must be as accepted in ledgers/."""
    perf.clock.start()
    try:
        ledger = count_collectives(perf.workload, precision, perf.device)
    except FakeRanksError as error:
        perf.gate(not_gated("ledger", "no collective is counted", str(error)))
    else:
        perf.keep("ledger", asdict(ledger))
    perf.timed([perf.clock.stop()[0]])
