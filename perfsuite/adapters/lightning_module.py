"""A LightningModule as a training: its Trainer's own loop takes each step, hooks and all."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from perfsuite.adapters.asked_precision import require_asked
from perfsuite.devices.precision import Precision
from perfsuite.training.batches import MicroBatches, TrainingError, samples_in_all
from perfsuite.training.workload import MakeTraining, Training

_NAMES = {Precision.fp16: "16-mixed", Precision.bf16: "bf16-mixed"}
_LEFT_OUT = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
# What Lightning does on its own account, in the words of the probes that would blame it.
_AUTOMATIC = {"gradients are held in the forward pass": "Lightning clears them after it"}
_MANUAL = {
    "autocast is on during the backward pass": "Lightning keeps it on during manual optimization"
}


class _Given(_DataFetcher):
    """Hands the loop the batch that it was given."""

    batch: Any = None

    def __next__(self) -> Any:
        return self.batch, 0, 0


class _Losses(Callback):
    """Notes what each training_step returned."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss."""
        del trainer, pl_module, batch, batch_idx  # part of Lightning's signature
        if not isinstance(outputs, dict) or "loss" not in outputs:
            raise TrainingError("training_step returned no loss: return it, detached or not")
        self.seen.append(outputs["loss"].detach())


def of_lightning(
    make: Callable[..., tuple[Trainer, LightningModule, Iterable[Any]]],
) -> MakeTraining:
    """Return how to make a training, from a function that makes a Trainer, a module and a loader.

    It is given by name the arguments that its Trainer has to have, such as precision and device.
    `training_step` returns the loss, by hand too, and one call is one step of each optimizer.
    """

    def training(precision: Precision, device: torch.device, _: int) -> Training:
        wanted = _NAMES.get(precision, "32-true")
        trainer, module, loader = make(
            precision=wanted,
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            **dict.fromkeys(_LEFT_OUT, False),
        )
        require_asked(precision, device, found=str(trainer.precision), wanted=wanted)
        losses, fetcher = _Losses(), _Given()
        trainer.callbacks.append(losses)  # type: ignore[attr-defined]  # made at run time
        _set_up(trainer, module, loader)

        def step(batches: list[Any]) -> torch.Tensor:
            for fetcher.batch in batches:
                trainer.fit_loop.epoch_loop.advance(fetcher)
            # Lightning has divided each by how many gradients are accumulated.
            loss = torch.stack(losses.seen).sum()
            losses.seen.clear()
            return loss

        state = [module, *trainer.optimizers, *(c.scheduler for c in trainer.lr_scheduler_configs)]
        return Training(
            step=step,
            batches=MicroBatches(loader, trainer.accumulate_grad_batches),
            state=[*state, trainer.scaler] if trainer.scaler else state,
            samples=samples_in_all,
            accepts=_AUTOMATIC if module.automatic_optimization else _MANUAL,
        )

    return training


def _set_up(trainer: Trainer, module: LightningModule, loader: Iterable[Any]) -> None:
    """Do what `Trainer.fit` does before its loop begins."""
    trainer.state.fn, trainer.state.stage = TrainerFn.FITTING, RunningStage.TRAINING
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(module, train_dataloaders=loader)
    trainer._callback_connector._attach_model_logging_functions()
    trainer.strategy.setup_environment()
    call._call_setup_hook(trainer)
    call._call_configure_model(trainer)
    trainer.strategy.setup(trainer)
    trainer.fit_loop.setup_data()
    module.train()
