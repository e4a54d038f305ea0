"""A side's server without torch and pytest, for tests of what the coordinator makes of it.

    pytest -p stub_server      # puts it in the place of the real one

It has collected what $STUB says; what its workers do, the name of the benchmark says.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from perfsuite.against import messages
from perfsuite.against.messages import REQUESTS, Line, LineClosedError, Request, Setup, Start, Wait

PLACE = Path(__file__)
LOADED = {"before": [], "after": [], "neither": ["mynet"], "shadowed": []}
FIGURE = {"figure": {"value": 100.0, "unit": "B", "better": "lower"}}


def pytest_configure() -> None:
    """Put this file in the place of the bootstrap."""
    # Late: it imports scipy, for which a stub would take two seconds to start.
    from perfsuite.against import controllers

    controllers._BOOTSTRAP = PLACE


def serve(line: Line[Request]) -> None:
    """Do what a server does."""
    stub = json.loads(os.environ["STUB"])
    setup = line.receive()
    assert isinstance(setup, Setup)
    if "prints" in stub:
        sys.exit(stub["prints"])
    if stub.get("hangs"):
        time.sleep(1000)
    collected = messages.Collected(
        items=stub["items"],
        errors=stub.get("errors", {}),
        prefix=setup.side,
        hardware={"key": "stub", "name": "stub", "count": 1},
        software={"torch": "0"},
        loaded=LOADED,
    )
    line.send(collected)
    while True:
        match line.receive():
            case Start(key=key):
                theirs = line.shared()
                pid = os.fork()
                if pid == 0:
                    os.setpgid(0, 0)
                    work(Line(theirs, REQUESTS), key)
                os.close(theirs)
                line.send(messages.Started(pid=pid))
            case Wait(pid=pid):
                _, status = os.waitpid(pid, 0)
                line.send(messages.Ended(code=os.waitstatus_to_exitcode(status)))


def work(line: Line[Request], key: str) -> NoReturn:
    """Do what a worker does, and what one should not do."""
    line.receive()
    if "hung" in key:
        (Path(os.environ["TMPDIR"]) / f"working-{os.getpid()}").touch()
        time.sleep(1000)
    if "exits" in key:
        os._exit(3)
    if "ended-by" in key:
        victim = os.getppid() if "server" in key else os.getpid()
        os.kill(victim, signal.Signals[key.rpartition(" ")[2]])
    if "strange" in key:
        line._socket.sendall(b'{"type": "unheard-of"}\n')
    elif "early" in key:
        line.send(messages.Ended(code=0))
    else:
        line.send(messages.Progress(what="work", done=1, of=1))
        line.send(messages.Done(record={"metrics": FIGURE, "raw": {}}, loaded=LOADED))
    os._exit(0)


if __name__ == "__main__":
    try:
        serve(Line(int(sys.argv[1]), REQUESTS))
    except LineClosedError:
        sys.exit(0)
