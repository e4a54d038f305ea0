"""``perfsuite init``: the files with which a project starts, for the machine it is on."""

from pathlib import Path

from perfsuite.judging.thresholds import FILE_NAME
from perfsuite.records.files import write_new

_TEMPLATES = Path(__file__).parent / "starter"


def start_suite(folder: Path) -> list[Path]:
    """Write the files of a new suite into a folder, all or none; return them.

    Raises:
        FileExistsError: one of them is there already.
    """
    from perfsuite.measuring.machine import machine  # imports torch

    here = machine("auto")
    known = {
        "hardware": str(here.hardware),
        "key": here.hardware.key,
        "precisions": ", ".join(here.precisions),
    }
    texts = {
        folder / "conftest.py": _template("conftest.py"),
        folder / "test_training.py": _template("test_training.py"),
        folder / "test_step_advice.py": _template("test_step_advice.py"),
        folder / FILE_NAME: _template(FILE_NAME).format(**known),
    }
    for path in texts:
        if path.exists():
            raise FileExistsError(f"{path} exists and is not overwritten")
    for path, text in texts.items():
        write_new(path, text.encode("utf-8"))
    return list(texts)


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
