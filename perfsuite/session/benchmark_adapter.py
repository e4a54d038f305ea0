"""The one place that uses pytest-benchmark's internals: its session, fixture and storage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import NameWrapper

from perfsuite.records.files import save_numbered


def claim(fixture: Any) -> None:
    """Mark the fixture `benchmark` as used: nothing else may time with it, and it warns not."""
    fixture._mode = "perf"


class PytestBenchmark:
    """pytest-benchmark's own session, as far as perfsuite uses it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        own: Any = config._benchmarksession  # type: ignore[attr-defined]  # set by its plugin
        self._own = own
        self.is_xdist_worker = bool(own.xdist_worker)
        self.is_disabled = bool(own.disabled)
        self.is_skipped = bool(own.skip)
        self.json_path: Path | None = own.json
        self.save_name: str | None = own.save or own.autosave

    @property
    def measured(self) -> bool:
        """Whether any benchmark left figures."""
        return bool(self._own.benchmarks)

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
        """Record an item's times, and `record` beside its own extra information."""
        fixture = getattr(item, "funcargs", {}).get("benchmark") or BenchmarkFixture(
            item,
            add_stats=self._own.benchmarks.append,
            logger=self._own.logger,
            warner=item.warn,
            disabled=False,
            **{**self._own.options, "timer": NameWrapper(None)},
        )
        fixture._timer = "perfsuite"  # saved as the timer's name, and never called
        fixture.extra_info["perfsuite"] = record
        stats = fixture._make_stats(iterations=1)
        for time_s in times_s:
            stats.update(time_s)

    def document(self) -> dict[str, Any]:
        """Return the run as it would save it, always with the raw data."""
        own, config, hook = self._own, self._config, self._config.hook
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
