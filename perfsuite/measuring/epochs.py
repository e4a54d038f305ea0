"""A whole training, epoch by epoch, in several precisions; broken off, it goes on where it was."""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from perfsuite.devices.device import Clock
from perfsuite.judging.stopping import ShowCount
from perfsuite.measuring.convergence import TrainingRun, train
from perfsuite.records.files import replace_all
from perfsuite.records.git import tree_as_it_is
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError
from perfsuite.training.snapshot import captured, put_back, random_state, set_random_state


@dataclass(eq=False)
class EpochsOf:
    """One precision's training, as far as it has come.

    With a checkpoint it is kept there after each epoch, and goes on from there, if that is of the
    same training, with as many threads, and of the same code, as the repository around it has it:
    without one nobody knows, and it begins anew.

    Attributes:
        arm: a fresh one.
        steps: of an epoch.
        about: what makes it another training, beside precision, steps and parameters.
        checkpoint: a file, which need not be there.
        runs: one an epoch, those before it was broken off too.
        differs: in what the checkpoint is, or may be, of another training; then this begins anew.
    """

    arm: Arm
    steps: int
    _: KW_ONLY
    about: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    runs: list[TrainingRun] = field(default_factory=list, init=False)
    differs: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        shapes = {name: list(each.shape) for name, each in self.arm.named_parameters().items()}
        own = {"precision": str(self.arm.precision), "steps": self.steps, "parameters": shapes}
        self._about = {**self.about, **own, "threads": torch.get_num_threads()}
        if self.checkpoint is not None:
            around = next(each for each in self.checkpoint.parents if each.is_dir())
            self._about["code"] = tree_as_it_is(around)
        self._random = random_state(self.arm.device)
        self._began: list[tuple[Any, ...]] = []  # the random state with which each epoch did
        if self.checkpoint is not None and self.checkpoint.exists():
            self._resume(self.checkpoint)

    def _resume(self, path: Path) -> None:
        try:
            # A whole pickle: what a state_dict may hold is for its owner to say. We wrote it.
            # To the host first: another training's device may not be here.
            about = torch.load(path, weights_only=False, map_location="cpu")["about"]
            names = about.keys() | self._about.keys()
            self.differs = {name for name in names if about.get(name) != self._about.get(name)}
            if not about.get("code"):  # without git nobody knows
                self.differs.add("code")
            if self.differs:
                return  # and the checkpoint is overwritten after the first epoch
            # Then each tensor back to where it was: Adam counts its steps on the host.
            saved = torch.load(path, weights_only=False)
            state, runs, began = saved["state"], saved["runs"], saved["began"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.PickleError) as error:
            why = str(error).partition("\n")[0]
            raise TrainingError(
                f"{path} is no checkpoint ({why}): remove it, and the training begins anew"
            ) from error
        for random in began:  # the order of the rest depends on those before
            set_random_state(self.arm.device, random)  # of which a loader may draw that order
            self.arm.take(self.steps)
        put_back(self.arm.parts, self.arm.device, state)
        self._random = random_state(self.arm.device)
        self._began = began
        self.runs = [TrainingRun(**run) for run in runs]

    def train_one(self, clock: Clock) -> None:
        """Train for an epoch; what others drew of random numbers does not reach it."""
        set_random_state(self.arm.device, self._random)
        self._began.append(self._random)
        self.runs.append(train(self.arm, self.arm.take(self.steps), clock))
        self._random = random_state(self.arm.device)
        if self.checkpoint is not None:
            state = captured(self.arm.parts, self.arm.device)
            runs = list(map(asdict, self.runs))
            kept = {"about": self._about, "state": state, "runs": runs, "began": self._began}
            file = io.BytesIO()
            torch.save(kept, file)
            replace_all({self.checkpoint: file.getvalue()})

    def forget(self) -> None:
        """Remove the checkpoint: what comes next is to be measured anew."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    @property
    def epoch_s(self) -> list[float]:
        """Seconds of each epoch."""
        return [run.elapsed_s for run in self.runs]

    @property
    def epoch_loss(self) -> list[float]:
        """Mean loss of each epoch."""
        return [run.mean_loss for run in self.runs]

    def joined(self) -> dict[str, Any]:
        """Return losses, scales and skipped steps of all epochs as those of one run."""
        skipped = [run.skipped_steps for run in self.runs if run.skipped_steps is not None]
        scales = [run.scales[min(epoch, 1) :] for epoch, run in enumerate(self.runs)]
        return {
            "losses": [loss for run in self.runs for loss in run.losses],
            "scales": [scale for each in scales for scale in each],
            "skipped_steps": sum(skipped) if len(skipped) == len(self.runs) else None,
        }


def train_epochs(
    trainings: Sequence[EpochsOf], *, epochs: int, clock: Clock, progress: ShowCount | None = None
) -> None:
    """Train until each has so many epochs behind it.

    They take turns, and who goes first alternates, so that what slows the machine slows all.
    """
    for epoch in range(epochs):
        for each in trainings[:: -1 if epoch % 2 else 1]:
            if progress is not None:
                progress(sum(len(one.runs) for one in trainings), epochs * len(trainings))
            if len(each.runs) <= epoch:
                each.train_one(clock)
    if progress is not None:
        progress(epochs * len(trainings), epochs * len(trainings))
