"""Saving a run in pytest-benchmark's place: whole, and never over another file."""

import os
from pathlib import Path

import pytest
from pytest_benchmark.storage.file import FileStorage

from perfsuite.runs import encode, next_free, save_numbered, write_new

__all__ = ["refuse_unwritable", "save_run"]


def refuse_unwritable(path: Path) -> None:
    """Refuse a file for --benchmark-json that would lose the run at its end.

    Raises:
        UsageError: there is a file of that name, or it cannot be made.
    """
    if path.exists():
        raise pytest.UsageError(f"--benchmark-json: {path} exists and is not overwritten")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise pytest.UsageError(f"--benchmark-json: {folder} is no folder that can be written to")


def save_run(config: pytest.Config) -> list[str]:
    """Save the run wherever pytest-benchmark was asked to; return lines that say where.

    The document is the one that pytest-benchmark makes, through its own hooks, and always
    with the raw data, without which no later comparison could be checked.

    Raises:
        OSError: it could not be written.
    """
    own = config._benchmarksession  # type: ignore[attr-defined]  # set by pytest-benchmark
    name, json_path = own.save or own.autosave, own.json
    own.save = own.autosave = own.json = None  # so that it saves no second copy
    if not (name or json_path) or own.xdist_worker:
        return []
    if not own.benchmarks:
        return ["nothing was saved: no benchmark was measured"]
    hook = config.hook
    commit = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit)
    document = hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=own.benchmarks,
        include_data=True,
        machine_info=own.get_machine_info(),
        commit_info=commit,
    )
    hook.pytest_benchmark_update_json(
        config=config, benchmarks=own.benchmarks, output_json=document
    )
    content, saved = encode(document), []
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
    return saved
