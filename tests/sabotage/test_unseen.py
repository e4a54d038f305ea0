"""What is said to be seen by no probe is not: once one sees it, it belongs into the catalogue."""

import pytest
from probing import CPU, not_passed_by

from perfsuite.probes.registry import PROBES
from sabotage import environments as env
from sabotage.record import Record, render
from sabotage.unseen import UNSEEN, Unseen


@pytest.mark.parametrize("fault", UNSEEN, ids=lambda fault: fault.plant.replace(" ", "-"))
def test_no_probe_sees_it(fault: Unseen, batch: env.Batch) -> None:
    make = env.factory(fault.kind, CPU, model=fault.model)
    assert not_passed_by(make, fault.precision, batch, PROBES) == []


def test_the_page_names_what_is_not_seen() -> None:
    page = render(Record(entries=[]))
    assert [fault.plant for fault in UNSEEN if f"| {fault.plant} | {fault.why} |" not in page] == []
