"""A clone of this repository, with a slowdown planted in the code that it measures, or without."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent

STEPS = Path("perfsuite") / "training" / "workload.py"
"""Where the timed steps are made."""
_PLANT = """

_arm = Workload.arm  # planted


def _slow_arm(self, precision, device, seed=0):
    from slowdown import slowed

    arm = _arm(self, precision, device, seed)
    arm.step = slowed(arm, {share}, device.type)
    return arm


Workload.arm = _slow_arm
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedSession:
    """How a comparison ended.

    Attributes:
        code: pytest's exit code.
        out: what it printed.
        run: what it saved, None if it saved nothing.
    """

    code: int
    out: str
    run: dict[str, Any] | None


def clone(folder: Path) -> Path:
    """Clone what is committed here into a folder that does not exist yet; return it."""
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    return folder


def plant(tree: Path, share: float) -> None:
    """Slow every timed step of a clone's working tree down by a share (0.1 for 10 %)."""
    source = (tree / STEPS).read_text(encoding="utf-8")
    (tree / STEPS).write_text(source + _PLANT.format(share=share), encoding="utf-8")


def unplant(tree: Path) -> None:
    """Undo `plant`."""
    subprocess.run(["git", "checkout", "--quiet", "--", str(STEPS)], cwd=tree, check=True)


def session_in(tree: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest in a clone, on the clone's own perfsuite."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tree,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def compare_with_head(tree: Path, arguments: Sequence[str]) -> PlantedSession:
    """Run ``pytest benchmarks --perf-against HEAD`` in a clone, with further arguments."""
    saved = tree.parent / f"{tree.name}.json"
    saved.unlink(missing_ok=True)
    done = session_in(tree, ["--perf-against", "HEAD", f"--benchmark-json={saved}", *arguments])
    run = json.loads(saved.read_bytes()) if saved.exists() else None
    return PlantedSession(code=done.returncode, out=done.stdout, run=run)
