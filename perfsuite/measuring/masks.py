"""Dropout's masks: whether a precision draws others than float32, and how a control gets others."""

import torch
from torch import nn

from perfsuite.devices.device import HOST
from perfsuite.devices.precision import Precision


def draw_other_masks(seed: int) -> None:
    """Let dropout draw masks that no pair of that seed has drawn."""
    torch.manual_seed(2**32 + seed)  # far from the seeds of pairs


def masks_differ(device: torch.device, precision: Precision) -> bool:
    """Tell whether dropout draws other masks in a precision than in float32 from the same seed.

    On a GPU that depends on its kernels. Where it does, the candidate has noise that its reference
    has not, and the control must have as much: it then draws masks of its own. Dropout stays on,
    since a training is judged as it is.
    """
    dtype = precision.autocast_dtype
    if dtype is None:
        return False
    with torch.random.fork_rng([] if device == HOST else [device], device_type=device.type):
        masks = []
        for each in (torch.float32, dtype):
            torch.manual_seed(0)
            ones = torch.ones(128, 1024, device=device, dtype=each)
            masks.append(nn.functional.dropout(ones) == 0)
    return not torch.equal(*masks)
