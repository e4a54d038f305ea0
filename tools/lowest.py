"""Print the lowest versions allowed, as constraints for pip: ``python tools/lowest.py FILE``.

FILE is a pyproject.toml; each ``name>=version`` of its dependencies and its extras' becomes
``name==version``.
"""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)(,.*)?")


def lowest(requirement: str) -> str:
    """Return a requirement that only its lower bound meets.

    Raises:
        ValueError: it has none.
    """
    parts = REQUIREMENT.fullmatch(requirement)
    if parts is None:
        raise ValueError(f"{requirement}: no lower bound, such as name>=1.2")
    return f"{parts[1]}=={parts[2]}"


def main(arguments: list[str]) -> int:
    """Print the constraints; return 0, or 1 after one line that says what was wrong."""
    if len(arguments) != 1:
        print("usage: python tools/lowest.py pyproject.toml", file=sys.stderr)
        return 2
    try:
        project = tomllib.loads(Path(arguments[0]).read_text(encoding="utf-8"))["project"]
        of_extras = project.get("optional-dependencies", {}).values()
        asked = [*project["dependencies"], *chain.from_iterable(of_extras)]
        print("\n".join(dict.fromkeys(map(lowest, asked))))  # two extras may ask for the same
    except (OSError, ValueError, KeyError) as error:
        print(f"lowest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
