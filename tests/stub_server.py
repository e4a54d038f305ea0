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
from typing import Any, NoReturn

from perfsuite.against import messages
from perfsuite.against.messages import REQUESTS, Line, LineClosedError, Request, Setup, Start
from perfsuite.against.worker.rank_forks import SAID_WHY, serve_restarts
from perfsuite.devices.torchrun import Seat

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

    def forked(start: Start, theirs: int, at: Seat, _: Any) -> NoReturn:
        line.close()
        work(Line(theirs, REQUESTS), start.key, at)

    serve_restarts(line, setup.ranks, forked)


def work(line: Line[Request], key: str, at: Seat) -> NoReturn:
    """Do what a worker does, and what one should not do."""
    if not at.leads:
        follow(line, key)
    line.receive()
    if "hung" in key:
        (Path(os.environ["TMPDIR"]) / f"working-{os.getpid()}").touch()
        time.sleep(1000)
    if "exits" in key:
        os._exit(3)
    if "ended-by" in key:
        victim = os.getppid() if "server" in key else os.getpid()
        os.kill(victim, signal.Signals[key.rpartition(" ")[2]])
    if "waits" in key:  # for another rank, which does not come
        time.sleep(1000)
    if "blames" in key:  # another rank, which has ended
        time.sleep(0.1)
        line.send(messages.Failed(reason="rank 0 of 2: Connection closed by peer"))
        os._exit(SAID_WHY)
    if "strange" in key:
        line._socket.sendall(b'{"type": "unheard-of"}\n')
    elif "early" in key:
        line.send(messages.Ended(code=0))
    else:
        line.send(messages.Progress(what="work", done=1, of=1))
        line.send(messages.Done(record={"metrics": FIGURE, "raw": {}}, loaded=LOADED))
    os._exit(0)


def follow(line: Line[Request], key: str) -> NoReturn:
    """Do what a rank other than 0 does."""
    if "killed" in key:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raises" in key:
        line.send(messages.Failed(reason="rank 1 of 2: ValueError: broken"))
        os._exit(SAID_WHY)
    if "hangs" in key:
        time.sleep(1000)
    os._exit(0)


if __name__ == "__main__":
    try:
        serve(Line(int(sys.argv[1]), REQUESTS))
    except LineClosedError:
        sys.exit(0)
