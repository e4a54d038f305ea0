"""Writing files: whole or not at all, and never over another."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; FileExistsError if there is one, which is left."""
    part = write_part(path, content)
    try:
        os.link(part, path)  # fails where another process took the name a moment ago
    finally:
        part.unlink(missing_ok=True)


def write_part(path: Path, content: bytes) -> Path:
    """Write beside `path` what is to be renamed to it, or removed; return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write files in the place of what they were, once all of them could be written."""
    parts: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            parts[path] = write_part(path, content)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def save_numbered(folder: Path, name: str, content: bytes) -> Path:
    """Write ``NNNN_name.json`` under the next number that is free in `folder`; return it."""
    while True:
        taken = [0]
        if folder.is_dir():
            found = (re.match(r"(\d{4,})_", entry.name) for entry in folder.iterdir())
            taken += [int(match.group(1)) for match in found if match]
        path = folder / f"{max(taken) + 1:04}_{name}.json"
        try:
            write_new(path, content)
        except FileExistsError:
            continue
        return path


def next_free(path: Path) -> Path:
    """Return `path`, or the first of ``stem-2``, ``stem-3``, … that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
