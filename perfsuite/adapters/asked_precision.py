"""Whether a library computes in the precision that was asked for: some take another in silence."""

import torch

from perfsuite.devices.precision import Precision
from perfsuite.training.batches import TrainingError


def require_asked(precision: Precision, device: torch.device, *, found: str, wanted: str) -> None:
    """Raise TrainingError unless what a library says that it computes in is what is wanted."""
    if found != wanted:
        raise TrainingError(
            f"{precision} was asked for on {device.type}, and this trains in {found}, not in"
            f" {wanted}: build it with the arguments that the function is given, and measure"
            f" {precision} on a device on which the library has it"
        )
