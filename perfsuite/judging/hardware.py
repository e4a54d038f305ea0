"""Keys of hardware, by which baselines are kept and thresholds are chosen."""

import math
import re

_OF_A_GPU = re.compile(r"(?P<name>(?!simulated-).+)-x\d+-(?P<gib>\d+)gib")


def gpu_key(name: str, gib: float) -> str:
    """Return the key of an NVIDIA GPU from its name, as a key has it, and the memory it reports.

    Older GPUs leave the vendor out ("Tesla T4"), and what is reported lacks what driver and error
    correction take, a sixteenth and some: 39.39 and 39.56 GiB are the same 40 GiB. So memory is
    rounded up to a size that is built. It is one GPU that a run uses, whatever else there is.
    """
    vendor = "" if name.startswith("nvidia-") else "nvidia-"
    nearest = round(gib)
    steps = ((8, 1), (12, 2), (24, 4), (math.inf, 8))
    step = next(step for most, step in steps if nearest <= most)
    return f"{vendor}{name}-x1-{math.ceil(nearest / step) * step}gib"


def current_key(key: str) -> str:
    """Return a key as it would be written today, from one that an earlier perfsuite wrote."""
    found = _OF_A_GPU.fullmatch(key)
    return gpu_key(found["name"], int(found["gib"])) if found else key
