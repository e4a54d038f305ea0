"""Measuring a benchmark once more, after what disturbed it may be over."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from perfsuite.measuring.bench import Bench

PAUSE_S = 30.0


def measure_again(
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
    return bench
