"""Measuring a benchmark once more, after what disturbed it may be over."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from perfsuite.measuring.bench import Bench
from perfsuite.training.batches import TrainingError

PAUSE_S = 30.0


def measure_again(
    item: pytest.Item,
    first: Bench,
    fresh: Callable[[], AbstractContextManager[Bench]],
    body: Callable[[], AbstractContextManager[None]],
) -> tuple[Bench | None, str]:
    """Return what a second try measured, None where it came to nothing, and how it went.

    It is only tried: where it fails, as without the memory that another process has taken, what
    the first one measured stands. `body` lets it fail on all ranks where it does on any of them.
    """
    failed = "could not be measured again"
    try:
        with body():
            again = _measured(item, first, fresh)
    except pytest.exit.Exception:
        raise
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # of anyone's code
        why = str(error).strip().partition("\n")[0]
        return None, f"{failed} ({type(error).__name__}: {why})"
    return again, failed if again is None else "was measured again"


def _measured(
    item: pytest.Item, first: Bench, fresh: Callable[[], AbstractContextManager[Bench]]
) -> Bench | None:
    """Pause, and run the body of a benchmark with a fresh `Bench`; None where it cannot be run.

    That is so where another fixture was given the first one: what it measures would go there.
    """
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    info = getattr(item, "_fixtureinfo", None)
    definitions = {} if info is None else info.name2fixturedefs
    others = [name for name, each in definitions.items() if "perf" in each[-1].argnames]
    if others or arguments.get("perf") is not first:
        return None
    time.sleep(PAUSE_S)
    with fresh() as bench:
        arguments["perf"] = bench
        item.runtest()
    if (fault := bench.notes.fault()) is not None:
        raise TrainingError(f"it measured nothing: {fault}")
    return bench
