"""Saving a run in pytest-benchmark's place: whole, and never over another file."""

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from perfsuite.records.files import next_free, save_numbered, write_new
from perfsuite.records.schema import encode

_Document = dict[str, Any]

RUN_FILE = "run.json"
"""What a run is called in the folder of its report."""


def refuse_unwritable(option: str, path: Path) -> None:
    """Refuse a file that would be lost at the session's end.

    Args:
        option: that names it.
        path: of the file.

    Raises:
        UsageError: there is a file of that name, or it cannot be made.
    """
    if path.exists():
        raise pytest.UsageError(f"{option}: {path} exists and is not overwritten")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise pytest.UsageError(f"{option}: {folder} is no folder that can be written to")


def _document(config: pytest.Config) -> _Document | None:
    """Return the run as pytest-benchmark makes it, through its own hooks; None without figures.

    It always holds the raw data, without which no later comparison could be checked.
    """
    own = config._benchmarksession  # type: ignore[attr-defined]  # set by pytest-benchmark
    if not own.benchmarks:
        return None
    hook = config.hook
    commit = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
    document: _Document = hook.pytest_benchmark_generate_json(
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


def save_run(config: pytest.Config, report: Path | None) -> tuple[list[str], Path | None]:
    """Save the run wherever that was asked for; return lines that say where.

    Args:
        config: pytest's.
        report: a folder that is to hold the run too.

    Returns:
        The lines, and the file in `report`.

    Raises:
        OSError: it could not be written.
    """
    own = config._benchmarksession  # type: ignore[attr-defined]  # set by pytest-benchmark
    name, json_path = own.save or own.autosave, own.json
    own.save = own.autosave = own.json = None  # so that it saves no second copy
    if not (name or json_path or report) or own.xdist_worker:
        return [], None
    document = _document(config)
    if document is None:
        return ["nothing was saved: no benchmark was measured"], None
    content, saved, source = encode(document), [], None
    if json_path is not None:
        free = next_free(json_path)
        write_new(free, content)
        taken = f" ({json_path} was taken meanwhile)" if free != json_path else ""
        saved.append(f"saved {free}{taken}")
    storage = own.storage
    if name and isinstance(storage, FileStorage):
        folder = Path(storage.get(name)).parent
        saved.append(f"saved {save_numbered(folder, name, content)}")
    elif name:
        storage.save(document, name)  # a server's: it numbers and stores by itself
        saved.append(f"saved in {storage}")
    if report is not None:
        source = next_free(report / RUN_FILE)
        write_new(source, content)
        saved.append(f"saved {source}")
    return saved, source
