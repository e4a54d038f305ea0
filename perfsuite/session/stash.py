"""What a pytest session knows of perfsuite, by the keys under which its config holds it."""

from typing import TYPE_CHECKING, Any

import pytest

from perfsuite.devices.torchrun import VARIABLES

if TYPE_CHECKING:
    from perfsuite.measuring.machine import Machine

SESSION = pytest.StashKey[Any]()
"""What gives the fixture `perf` its `Bench`; its module imports torch."""
TRIES = pytest.StashKey[Any]()
"""In a process that was started for one batch: tries it with a `Bench`, and ends."""
MACHINE: "pytest.StashKey[Machine]" = pytest.StashKey()
"""What the session runs on."""
NO_MACHINE = pytest.StashKey[str]()
"""Why there is none."""

NOT_INHERITED = VARIABLES | {"PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTHONHOME"}
"""Variables that are this session's: a process that it starts is told what it needs of them."""

LAUNCHER = "PERFSUITE_LAUNCHER"
"""The variable with the process id of the session that started the ranks, which end with it."""
RANK_FILES = "PERFSUITE_RANK_FILES"
"""The variable with the folder to which the ranks that it started print."""
