"""How a project says what it trains: a function that makes the training becomes a workload."""

from collections.abc import Callable
from typing import Any

import pytest

from perfsuite.training.workload import MakeTraining, Workload


def workload(name: str, **settings: Any) -> Callable[[MakeTraining], Any]:
    """Make a function of (precision, device, seed) the workload of its conftest.py or module.

    It returns a fresh `Training`. `settings` are those of `Workload`, such as ``data``, what the
    batches are of, and ``block_steps``. What is returned is the fixture ``workload``.
    """

    def declare(make: MakeTraining) -> Any:
        declared = Workload(name=name, make=make, **settings)

        @pytest.fixture(scope="session", name="workload")
        def own_workload() -> Workload:
            return declared

        return own_workload

    return declare
