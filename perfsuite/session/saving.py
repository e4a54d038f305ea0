"""Saving a run in pytest-benchmark's place: whole, and never over another file."""

import os
from pathlib import Path

import pytest

from perfsuite.records.files import next_free, write_new
from perfsuite.records.schema import encode
from perfsuite.session.benchmark_adapter import PytestBenchmark

RUN_FILE = "run.json"
"""What a run is called in the folder of its report."""


def refuse_unwritable(option: str, path: Path) -> None:
    """Refuse the file that an option names if the session could not write it at its end.

    Raises:
        UsageError: there is a file of that name, or it cannot be made.
    """
    if path.exists():
        raise pytest.UsageError(f"{option}: {path} exists and is not overwritten")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise pytest.UsageError(f"{option}: {folder} is not a folder that can be written to")


def save_run(benchmark: PytestBenchmark, report: Path | None) -> tuple[list[str], Path | None]:
    """Save the run wherever an option says, and in the folder `report`.

    Returns:
        Lines that say where, and the file in `report`.

    Raises:
        OSError: it could not be written.
    """
    name, json_path = benchmark.save_name, benchmark.json_path
    benchmark.save_nothing()  # by itself, a second time
    if not (name or json_path or report) or benchmark.is_xdist_worker:
        return [], None
    if not benchmark.measured:  # of that only a report tells
        name = json_path = None
    if not (name or json_path or report):
        return ["nothing was saved: no benchmark was measured"], None
    document = benchmark.document()
    content, saved, source = encode(document), list[str](), None
    if json_path is not None:
        free = next_free(json_path)
        write_new(free, content)
        taken = f" ({json_path} was written by something else meanwhile)"
        saved.append(f"saved {free}{taken if free != json_path else ''}")
    if name:
        saved.append(f"saved {benchmark.store(name, document, content)}")
    if report is not None:
        source = next_free(report / RUN_FILE)
        write_new(source, content)
        saved.append(f"saved {source}")
    return saved, source
