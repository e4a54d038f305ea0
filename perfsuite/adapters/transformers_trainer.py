"""A Trainer of Transformers as a training: its own training_step, clipping and schedule."""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer

from perfsuite.adapters.accelerate_loop import own_state, require_mixed, unwrapped
from perfsuite.devices.precision import Precision
from perfsuite.training.batches import MicroBatches, samples_in_all
from perfsuite.training.workload import MakeTraining, Training


def of_trainer(make: Callable[..., Trainer]) -> MakeTraining:
    """Return how to make a training, from a function that makes a Trainer.

    It is given by name the arguments that its TrainingArguments have to have: precision, device
    and seed. A step is what the Trainer does for one step of the optimizer, without callbacks,
    logging and saving.
    """

    def training(precision: Precision, device: torch.device, seed: int) -> Training:
        enter = own_state()
        trainer = make(
            bf16=precision is Precision.bf16,
            fp16=precision is Precision.fp16,
            use_cpu=device.type == "cpu",
            seed=seed,
            data_seed=seed,
            report_to="none",
        )
        require_mixed(trainer.accelerator, precision)
        args, accelerator, loader = (
            trainer.args,
            trainer.accelerator,
            trainer.get_train_dataloader(),
        )
        number = args.gradient_accumulation_steps
        epoch = max(len(loader) // number, 1)
        trainer.create_optimizer()
        model, trainer.optimizer = accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.model_wrapped = model
        whole = args.max_steps if args.max_steps > 0 else math.ceil(epoch * args.num_train_epochs)
        trainer.create_scheduler(num_training_steps=whole)
        trainer.current_gradient_accumulation_steps = number
        optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
        assert optimizer is not None and schedule is not None  # noqa: PT018  # for the type checker

        def step(batches: list[Any]) -> torch.Tensor:
            enter()
            samples, items = trainer.get_batch_samples(iter(batches), number, args.device)
            losses = []
            for index, inputs in enumerate(samples, start=1):
                accelerator.gradient_state._set_sync_gradients(index == number)
                losses.append(trainer.training_step(model, inputs, items))
            if args.max_grad_norm > 0:
                accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            optimizer.step()
            if not accelerator.optimizer_step_was_skipped:
                schedule.step()
            model.zero_grad()
            return torch.stack(losses).sum()

        state = [trainer.model, optimizer, schedule]
        return Training(
            step=step,
            batches=MicroBatches(loader, number),
            state=unwrapped(state, accelerator.scaler),
            samples=samples_in_all,
            move=False,  # the loader does
        )

    return training
