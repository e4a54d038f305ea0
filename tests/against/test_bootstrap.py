"""A side's imports come from its own tree, before perfsuite itself can be imported.

A perfsuite of a few lines stands for that of the side, so that nothing takes a second.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perfsuite.against import controllers
from perfsuite.against.messages import PROTOCOL, Setup

SERVER = """
import json
import os
import subprocess
import sys

import mynet


def serve(descriptor, arguments, suite, loaded, ranks):
    started = subprocess.run(
        [sys.executable, "-c", "import mynet; print(mynet.__file__)"],
        capture_output=True, check=True, text=True,
    )
    said = {"here": mynet.__file__, "started": started.stdout.strip(), "suite": suite}
    said |= {"arguments": arguments, "loaded": loaded(), "ranks": ranks}
    os.write(descriptor, json.dumps(said).encode() + b"\\n")
    return 0
"""


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """A working tree and the code before, each with a package; and what both have installed."""
    for tree in ("tree", "checkout"):
        write(tmp_path / tree / "src" / "mynet" / "__init__.py", "")
    use(tmp_path, f"PROTOCOL = {PROTOCOL}\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def use(trees: Path, messages: str, server: str = SERVER) -> None:
    """Let this be the side's perfsuite."""
    for name, text in {
        "__init__": "",
        "against/__init__": "",
        "against/messages": messages,
        "against/worker/__init__": "",
        "against/worker/server": server,
    }.items():
        write(trees / "installed" / "perfsuite" / f"{name}.py", text)


def boot(trees: Path, side: str) -> Any:
    """Start a side whose PYTHONPATH leads into the working tree; return what it says."""
    setup = Setup(
        side=side,
        top=str(trees / "tree"),
        checkout=str(trees / "checkout"),
        suite="benchmarks",
        suite_folder="suite",
        working_folder_first=False,
        perfsuite=None,
        arguments=["-v"],
        ranks=2,
    )
    ours, theirs = socket.socketpair()
    paths = [trees / "installed", trees / "tree" / "src"]
    with ours, theirs:
        ours.sendall(msgspec.json.encode(setup) + b"\n")
        done = subprocess.run(
            [sys.executable, "-P", controllers._BOOTSTRAP, str(theirs.fileno())],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            cwd=trees,
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
        theirs.close()
        said = ours.recv(1 << 16)
    if not said:
        pytest.fail(f"nothing was said: {done.stdout}{done.stderr}")
    return json.loads(said)


@pytest.mark.parametrize(("side", "tree"), [("before", "checkout"), ("after", "tree")])
def test_imports_are_of_the_sides_own_tree(trees: Path, side: str, tree: str) -> None:
    said = boot(trees, side)
    own = str(trees / tree / "src" / "mynet" / "__init__.py")
    assert said["here"] == own
    assert said["started"] == own  # what a benchmark starts, too
    assert said["loaded"][side] == ["mynet"]
    assert (said["suite"], said["arguments"][-1], said["ranks"]) == ("suite", "-v", 2)


OLDER = f"its perfsuite speaks another protocol than {PROTOCOL}; take a later commit"


@pytest.mark.parametrize(
    ("messages", "server", "why"),
    [
        ("PROTOCOL = 1", "", f"its perfsuite speaks protocol 1, and not {PROTOCOL}; take a later"),
        ("PROTOCOL = 99", "", f"protocol 99, and not {PROTOCOL}; take an earlier commit"),
        ("", SERVER, OLDER),
        (f"PROTOCOL = {PROTOCOL}", "import perfsuite.renamed", OLDER),
        (
            f"PROTOCOL = {PROTOCOL}",
            "import not_installed",
            f"No module named 'not_installed', for {sys.executable}",
        ),
    ],
    ids=["older", "newer", "no-protocol", "no-such-module", "not-installed"],
)
def test_a_perfsuite_that_cannot_serve_is_refused_in_one_line(
    trees: Path, messages: str, server: str, why: str
) -> None:
    use(trees, messages, server)
    said = boot(trees, "before")
    assert said["type"] == "failed"
    assert why in said["reason"]


@pytest.mark.parametrize("inner", ["against.py", "line.py"])
def test_a_perfsuite_without_these_modules_is_refused_in_one_line(trees: Path, inner: str) -> None:
    package = trees / "installed" / "perfsuite"
    (package / "against").rename(trees / "gone")
    write(package / inner, "PROTOCOL = 1\n")
    assert boot(trees, "before") == {"type": "failed", "reason": OLDER}
