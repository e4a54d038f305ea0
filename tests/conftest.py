"""What every test may need."""

import gc
import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from fake_nvml import gpu  # noqa: F401  # a fixture, for all that ask for it

if TYPE_CHECKING:
    from sabotage import environments as env

# Whatever needs torch is imported late: the process that starts the workers runs no test.

pytest_plugins = ["pytester"]
LONGEST = "test_a_whole_evening_on_the_simulated_card"


def pytest_configure() -> None:
    """Say what sessions that tests start are to know: no more than one thread, and not of xdist.

    The models here are small: a second thread costs more than it brings, above all where other
    work takes a core and the two wait for each other.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which comes later
    os.environ.pop("PYTEST_XDIST_WORKER", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes longest first; skip CUDA tests where there is no GPU, and say why."""
    import torch

    # Else one process is at it for a minute after the others have ended.
    items.sort(key=lambda item: item.name != LONGEST)
    if torch.cuda.is_available():
        return
    why = "built without CUDA" if torch.version.cuda is None else "sees no GPU"
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device: this torch {why}"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while torch and the tests are imported: that takes a quarter longer."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        _leave_out_what_is_there()
        # Each session asks; to count a million objects takes 40 ms, and there are hundreds of them.
        pytest.MonkeyPatch().setattr(gc, "get_freeze_count", lambda: 1)


def pytest_runtest_logfinish() -> None:
    """Leave out what a test was the first to import, too, such as the whole of torch's compiler."""
    if len(sys.modules) > _modules + 50:
        _leave_out_what_is_there()


_modules = 0


def _leave_out_what_is_there() -> None:
    """Look through none of it again: probes and sessions collect garbage a thousand times."""
    global _modules  # noqa: PLW0603  # of this process, as what is frozen is
    _modules = len(sys.modules)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def batch() -> "env.Batch":
    """Return the batch that probes look at."""
    from probing import CPU
    from sabotage import environments as env

    return env.batches(CPU, seed=0, steps=1)[0]


@pytest.fixture
def narrow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give models a head of 64 neurons, not the tutorial's 1000.

    Most of a small step's time goes into that million of weights.
    """
    from perfsuite.training import model

    monkeypatch.setattr(model, "HEAD_WIDTH", 64)
