"""Write a real comparison into pages: ``python tools/transcript.py README.md PAGE.md...``.

Clones what is committed, slows every step of the clone's working tree down by a tenth, lets
``pytest --perf-against HEAD`` find it, and puts what that printed between the two markers.
"""

import os
import sys
import tempfile
from pathlib import Path

from figures import replace

sys.path.insert(0, str(Path(__file__).parent.parent / "studies"))
from planted import clone, compare_with_head, plant  # found once it is on the path

BEGIN, END = "<!-- transcript: begin -->", "<!-- transcript: end -->"
SHARE = 0.10
ARGUMENTS = ("benchmarks/test_step_time.py", "-k", "fp32", "--perf-budget", "120")
WIDTH = 100


def transcript() -> str:
    """Return a session in which the planted slowdown was found, as Markdown.

    Raises:
        RuntimeError: it was not found.
    """
    os.environ["COLUMNS"] = str(WIDTH)
    with tempfile.TemporaryDirectory(prefix="transcript-") as home:
        tree = clone(Path(home) / "tree")
        plant(tree, SHARE)
        done = compare_with_head(tree, ARGUMENTS)
    if done.code != 1 or "SLOWER" not in done.out:
        raise RuntimeError(f"the planted slowdown was not found:\n{done.out}")
    lines = done.out.splitlines()
    first, last = (
        next(at for at, line in enumerate(lines) if word in line)
        for word in (" FAILURES ", " short test summary info ")  # which says the same once more
    )
    shown = [line for line in lines[first:last] if not line.startswith("saved ")]
    command = f"pytest {' '.join(ARGUMENTS)} --perf-against HEAD"
    return "\n".join([BEGIN, "```console", f"$ {command}", *shown, "```", END])


def main(arguments: list[str]) -> int:
    """Rewrite the pages, all or none; return 0, or 1 after what was wrong."""
    if not arguments:
        print("usage: python tools/transcript.py README.md PAGE.md...", file=sys.stderr)
        return 2
    try:
        pages = {Path(name): Path(name).read_text(encoding="utf-8") for name in arguments}
        for text in pages.values():
            replace(text, "", begin=BEGIN, end=END)  # before it takes minutes
        shown = transcript()
        for page, text in pages.items():
            page.write_text(replace(text, shown, begin=BEGIN, end=END), encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        print(f"transcript: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
