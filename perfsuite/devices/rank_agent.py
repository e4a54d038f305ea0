"""torchrun, which leaves word of how its ranks ended: `python -P -m perfsuite.devices.rank_agent`.

Its own end knows failed from passed, and names no exit code.
"""

import json
import signal
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run


def start_ranks(word: Path, arguments: list[str]) -> None:
    """Do as ``torchrun ARGUMENTS`` does; leave [rank, exit code] of those that failed in `word`.

    They are in the order in which they ended; a code below zero is minus a signal.
    """
    failures = []
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        failures = [(rank, each) for rank, each in error.failures.items()]
    # Those that it ended itself, as one failed, come last.
    failures.sort(key=lambda one: (one[1].exitcode == -signal.SIGTERM, one[1].timestamp))
    word.write_text(json.dumps([(rank, each.exitcode) for rank, each in failures]))


if __name__ == "__main__":
    start_ranks(Path(sys.argv[1]), sys.argv[2:])
