"""The one place that uses pytest-benchmark's internals: its session, fixture and storage."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import NameWrapper

from perfsuite.records.files import save_numbered


class Replay:
    """A timer whose differences are the times that it was given."""

    __name__ = "perfsuite"

    def __init__(self) -> None:
        self._readings: Iterator[float] = iter(())

    def load(self, times_s: Sequence[float]) -> None:
        """Give it the times; it is then read twice for each."""
        self._readings = iter([reading for time_s in times_s for reading in (0.0, time_s)])

    def __call__(self) -> float:
        """Return the next reading."""
        return next(self._readings)


def hand_over(fixture: Any, timer: Replay, times_s: Sequence[float], record: object) -> None:
    """Let pytest-benchmark's fixture, made with `timer`, record times and what goes with them."""
    timer.load(times_s)
    fixture.extra_info["perfsuite"] = record
    fixture.pedantic(lambda: None, rounds=len(times_s))


class PytestBenchmark:
    """pytest-benchmark's own session, as far as perfsuite uses it.

    Attributes:
        is_xdist_worker: whether this process is one of several that share the tests.
        is_disabled: whether --benchmark-disable is in force.
        is_skipped: whether --benchmark-skip is in force.
        json_path: the file of --benchmark-json.
        save_name: the name of a run that --benchmark-save or --benchmark-autosave saves.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        own: Any = config._benchmarksession  # type: ignore[attr-defined]  # set by its plugin
        self._own = own
        self.is_xdist_worker = bool(own.xdist_worker)
        self.is_disabled = bool(own.disabled)
        self.is_skipped = bool(own.skip)
        self.json_path: Path | None = own.json
        self.save_name: str | None = own.save or own.autosave

    def hide_table(self) -> None:
        """Show its table, which is wide and sorts by the fastest block, only if verbose."""
        self._own.quiet = not self._own.verbose

    def save_nothing(self) -> None:
        """Keep it from saving a run, and from warning that there is none."""
        self._own.save = self._own.autosave = self._own.json = None

    def compare(self, value: Any) -> None:
        """Let it compare by itself, as --benchmark-compare=VALUE does."""
        self._config.option.benchmark_compare = self._own.compare = value
        self._own.handle_loading()

    def record(self, item: pytest.Item, times_s: Sequence[float], record: object) -> None:
        """Record times of an item that has no fixture `benchmark`."""
        timer = Replay()
        fixture = BenchmarkFixture(
            item,
            add_stats=self._own.benchmarks.append,
            logger=self._own.logger,
            warner=item.warn,
            disabled=False,
            **{**self._own.options, "timer": NameWrapper(timer)},
        )
        hand_over(fixture, timer, times_s, record)

    def document(self) -> dict[str, Any] | None:
        """Return the run as it would save it, always with the raw data; None without figures."""
        own, config, hook = self._own, self._config, self._config.hook
        if not own.benchmarks:
            return None
        commit = hook.pytest_benchmark_generate_commit_info(config=config)
        hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=config,
            benchmarks=own.benchmarks,
            include_data=True,
            machine_info=own.get_machine_info(),
            commit_info=commit,
        )
        hook.pytest_benchmark_update_json(
            config=config, benchmarks=own.benchmarks, output_json=document
        )
        return document

    def store(self, name: str, document: dict[str, Any], content: bytes) -> str:
        """Save a run, and its content as JSON, where --benchmark-storage says; return where."""
        storage = self._own.storage
        if isinstance(storage, FileStorage):
            return str(save_numbered(Path(storage.get(name)).parent, name, content))
        storage.save(document, name)  # a server's: it numbers and stores by itself
        return f"in {storage}"
