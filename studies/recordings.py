"""The recordings of the study: read whole, written whole."""

from pathlib import Path
from typing import Any

import msgspec
from study_verdicts import DetectionTrial


class DetectionStudy(msgspec.Struct, kw_only=True):
    """Every trial of one machine.

    Attributes:
        hardware: the accelerator's name, or the CPU's.
        count: how many.
        software: versions.
        trials: in the order in which they were measured.
    """

    hardware: str
    count: int
    software: dict[str, Any]
    trials: list[DetectionTrial]


def read_study(path: Path) -> DetectionStudy | None:
    """Return what was recorded, or None if nothing was.

    Raises:
        OSError: the file cannot be read.
        DecodeError: it holds something else.
    """
    if not path.exists():
        return None
    return msgspec.json.decode(path.read_bytes(), type=DetectionStudy)


def write_study(path: Path, study: DetectionStudy) -> None:
    """Write the recordings, a line a trial."""
    trials = b",\n".join(msgspec.json.encode(trial) for trial in study.trials)
    head = msgspec.json.encode({**msgspec.structs.asdict(study), "trials": []})
    write_whole(path, head.removesuffix(b"]}") + b"\n" + trials + b"\n]}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; what stood there is replaced at once, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content + b"\n")
    partial.replace(path)
