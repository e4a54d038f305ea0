"""What a session measures on: found once, when it is first asked for."""

import pytest

from perfsuite.devices.choice import WITHOUT_GPU
from perfsuite.devices.device import DeviceError
from perfsuite.devices.torchrun import RankError
from perfsuite.measuring.machine import Machine, machine
from perfsuite.session.options import parallel_asked, ranks_of
from perfsuite.session.stash import MACHINE, NO_MACHINE


def machine_of(config: pytest.Config) -> Machine:
    """Return what the session runs on."""
    if NO_MACHINE in config.stash:  # asked once: the ranks would join anew for each test
        raise pytest.UsageError(config.stash[NO_MACHINE])
    if MACHINE not in config.stash:
        if (
            hasattr(config, "workerinput") and ranks_of(config) > 1
        ):  # each would claim the same rank
            raise pytest.UsageError("ranks cannot measure under xdist; run with -n0")
        parallel_asked(config)  # refused where it means nothing
        try:
            config.stash[MACHINE] = machine(config.getoption("perf_device"))
        except (DeviceError, RankError) as error:
            config.stash[NO_MACHINE] = str(error)
            raise pytest.UsageError(str(error)) from None
    return config.stash[MACHINE]


def hide_unused_gpus(config: pytest.Config) -> None:
    """Hide the GPUs of a machine from a session that measures its CPU."""
    if config.getoption("perf_device") != "cpu":
        return
    for name, value in WITHOUT_GPU.items():
        patch = pytest.MonkeyPatch()
        patch.setenv(name, value)
        config.add_cleanup(patch.undo)
