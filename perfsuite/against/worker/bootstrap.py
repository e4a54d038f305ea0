"""Starts a side of a comparison: `python -P bootstrap.py DESCRIPTOR`, before anything is imported.

It sees to it that the code under test comes from this side's tree, also where the other tree is
installed in editable mode, on PYTHONPATH or in a finder of its own, and hands over to
`perfsuite.against.worker.server`. Until then it may use nothing but the standard library, since
perfsuite itself may be under test.
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
    if given["here"]:
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
    if given["pin"] is not None:
        sys.meta_path.insert(0, kinds.Pinned("perfsuite", given["pin"]))
    return trees


def _main(descriptor: int) -> int:
    line = socket.socket(fileno=os.dup(descriptor))
    received = b""
    while not received.endswith(b"\n"):
        chunk = line.recv(1 << 16)
        if not chunk:
            return 1
        received += chunk
    given = json.loads(received)
    trees = _prepare(given)
    try:
        from perfsuite.against import messages
        from perfsuite.against.worker import server as serving

        if given["protocol"] != messages.PROTOCOL:
            raise ImportError(f"its perfsuite speaks protocol {messages.PROTOCOL}")
    except ImportError as error:
        why = str(error)
        if str(error.name).startswith("perfsuite"):
            why = "its perfsuite is older than --perf-against; take a later commit"
        elif error.name:
            why += f", for {sys.executable}"
        line.sendall(json.dumps({"kind": "failed", "reason": why}).encode() + b"\n")
        return 1
    line.close()
    plugins = {entry.value for entry in entry_points(group="pytest11")}
    own = [] if "perfsuite.plugin" in plugins else ["-p", "perfsuite.plugin"]
    done: int = serving.serve(descriptor, [*own, *given["args"]], given["home"], trees.loaded)
    return done


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1])))
