"""The tutorial's step with torch.compile: how long it takes to compile, and into what."""

import pytest

from perfsuite import Workload, tutorial_workload
from perfsuite.benchmarks import test_ledger as test_compiled_ledger
from perfsuite.benchmarks.compilation import test_compilation


@pytest.fixture(scope="session")
def workload(workload: Workload) -> Workload:
    """The same training as elsewhere, its model compiled."""
    return tutorial_workload(workload.name, workload.data, backend="inductor")
