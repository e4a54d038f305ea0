"""Starts a side of a comparison: `python -P bootstrap.py DESCRIPTOR`, before anything is imported.

The code under test must come from this side's tree, also where the other tree is installed in
editable mode, on PYTHONPATH or in a finder of its own. It may be perfsuite's: until then only the
standard library is used, and the first message, `against.messages.Setup`, is read as plain JSON.
"""

import importlib.util
import json
import os
import socket
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import entry_points
from typing import Any


def _load_trees() -> Any:
    """Return `import_paths`, loaded by its place: the package may be the other side's."""
    package = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120  # text
    place = os.path.join(package, "import_paths.py")  # noqa: PTH118  # text
    spec = importlib.util.spec_from_file_location("_perfsuite_trees", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _prepare(given: dict[str, Any]) -> Any:
    """Let imports come from this side's tree; return the trees."""
    kinds = _load_trees()
    trees = kinds.Trees(given["top"], given["checkout"], given["suite"], kinds.installed_folders())
    if given["working_folder_first"]:
        sys.path.insert(0, os.getcwd())  # noqa: PTH109  # what `python -m pytest` puts there
    if given["side"] == "before":
        sys.path[:] = [trees.translated(entry) for entry in sys.path]
        # What it starts in its turn is to find the same.
        own = [entry for entry in sys.path if trees.side_of(entry) == "before"]
        given_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        inherited = [trees.translated(entry) for entry in given_path if entry]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*own, *inherited]))
        standard = (BuiltinImporter, FrozenImporter, PathFinder)
        sys.meta_path[:] = [
            finder if finder in standard else kinds.Translated(finder, trees)
            for finder in sys.meta_path
        ]
    if given["perfsuite"] is not None:
        sys.meta_path.insert(0, kinds.Pinned("perfsuite", given["perfsuite"]))
    return trees


def _refusal(given: dict[str, Any]) -> str | None:
    """Import what serves; return why this side's perfsuite cannot, None if it can."""
    other = f"its perfsuite speaks another protocol than {given['protocol']}"
    try:
        from perfsuite.against.messages import PROTOCOL

        if given["protocol"] == PROTOCOL:
            import perfsuite.against.worker.server  # noqa: F401  # imported for the first time

            return None
        other = f"its perfsuite speaks protocol {PROTOCOL}, and not {given['protocol']}"
        newer = given["protocol"] < PROTOCOL
    except ImportError as error:
        if not str(error.name).startswith("perfsuite"):
            return f"{error}, for {sys.executable}" if error.name else str(error)
        newer = False
    return f"{other}; take {'an earlier' if newer else 'a later'} commit"


def _main(descriptor: int) -> int:
    line = socket.socket(fileno=os.dup(descriptor))
    with line.makefile("rb") as file:
        received = file.readline()
    if not received.endswith(b"\n"):
        return 1
    given = json.loads(received)
    trees = _prepare(given)
    if (why := _refusal(given)) is not None:
        line.sendall(json.dumps({"type": "failed", "reason": why}).encode() + b"\n")
        return 1
    line.close()
    from perfsuite.against.worker.server import serve

    plugins = {entry.value for entry in entry_points(group="pytest11")}
    own = [] if "perfsuite.plugin" in plugins else ["-p", "perfsuite.plugin"]
    arguments = [*own, *given["arguments"]]
    done: int = serve(descriptor, arguments, given["suite_folder"], trees.loaded, given["ranks"])
    return done


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1])))
