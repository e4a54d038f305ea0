"""The catalogue: what can be wrong with mixed precision, and the gate that must see it."""

from perfsuite.devices.precision import Precision
from perfsuite.probes.dtypes import layer_dtypes, memory_format
from perfsuite.probes.optimizer import sgd_canary, step_count
from perfsuite.probes.resources import host_waits, memory_slope
from perfsuite.training.step import TrainStep
from sabotage import environments as env
from sabotage import evaluations, graphs, passes, speed, states, steps, updates
from sabotage.environments import in_a_region, probed, together, trained
from sabotage.row import CatalogueRow, probe_row

ROWS: tuple[CatalogueRow, ...] = (
    probe_row(
        1,
        "autocast is missing",
        steps.WithoutAutocast,
        Precision.bf16,
        {"probe layer_dtypes": "computed in float32"},
    ),
    probe_row(
        2,
        "the backward pass runs under autocast",
        steps.BackwardUnderAutocast,
        Precision.bf16,
        {"probe autocast_in_backward": "autocast is on during the backward pass"},
    ),
    probe_row(
        3,
        "float16 without a scaler",
        steps.WithoutScaler,
        Precision.fp16,
        {"probe loss_scale": "are 1 times fp32's"},
    ),
    probe_row(
        4,
        "the optimizer steps on scaled gradients",
        steps.StepOnScaledGradients,
        Precision.fp16,
        {"probe gradients": "e+04 times fp32's gradients", "probe sgd_canary": "at step"},
    ),
    probe_row(
        5,
        "scaler.scale is left out",
        steps.WithoutScale,
        Precision.fp16,
        {"probe step_count": "your script did not use scaler.scale"},
    ),
    probe_row(
        5,
        "scaler.step is left out",
        steps.WithoutScalerStep,
        Precision.fp16,
        {"probe step_count": "raised AssertionError: No inf checks were recorded"},
    ),
    probe_row(
        6,
        "scaler.update is left out",
        steps.WithoutUpdate,
        Precision.fp16,
        {"probe step_count": "raised RuntimeError: step() has already been called"},
    ),
    probe_row(
        7,
        "gradients are clipped before they are unscaled",
        steps.ClippingScaledGradients,
        Precision.fp16,
        {
            "probe gradients": "e-05 times fp32's gradients",
            "probe sgd_canary": "0.000 times as fast",
        },
        twin=steps.ClippingUnscaledGradients,
    ),
    CatalogueRow(
        number=8,
        plant="every step is taken twice",
        because={
            "probe step_count": "6 optimizer steps in 3 calls",
            "mean_loss": "mean_loss: 0.",  # it learns faster, and is wrong
            "skipped_steps": "took more steps than it was asked to",
        },
        healthy=together(
            probed(TrainStep, Precision.bf16, step_count),
            trained(TrainStep, Precision.bf16, "mean_loss", "skipped_steps"),
        ),
        planted=together(
            probed(steps.DoubleStep, Precision.bf16, step_count),
            trained(steps.DoubleStep, Precision.bf16, "mean_loss", "skipped_steps"),
        ),
    ),
    probe_row(
        9,
        "gradients are never cleared",
        steps.WithoutZeroGrad,
        Precision.fp16,
        {"probe fresh_gradients": "left from the step before"},
    ),
    probe_row(
        10,
        "gradients are zeroed, not freed",
        steps.ZeroedGradients,
        Precision.bf16,
        {"probe fresh_gradients": "zeroed, not freed"},
    ),
    CatalogueRow(
        number=11,
        plant="the model itself is cast to float16",
        because={"probe layer_dtypes": "is float16", "finite": "not finite: "},
        healthy=together(
            probed(TrainStep, Precision.fp16, layer_dtypes),
            trained(TrainStep, Precision.fp16, "finite", optimizer=env.adam_not_fused),
        ),
        planted=together(
            probed(steps.HalfModel, Precision.fp16, layer_dtypes),
            # A fused Adam computes in float32 whatever it is given, and hides it.
            trained(steps.HalfModel, Precision.fp16, "finite", optimizer=env.adam_not_fused),
        ),
    ),
    probe_row(
        12,
        "the loss is computed outside autocast",
        steps.LossOutsideAutocast,
        Precision.fp16,
        {"probe loss_dtype": "the loss is float16"},
    ),
    CatalogueRow(
        number=13,
        plant="BCELoss under autocast",
        because={"probe step_count": "unsafe to autocast"},
        healthy=probed(TrainStep, Precision.fp16, step_count, criterion=env.bce_with_logits),
        planted=probed(TrainStep, Precision.fp16, step_count, criterion=env.bce),
        needs_cuda=True,
    ),
    CatalogueRow(
        number=14,
        plant="the scale starts at 2^40",
        because={"skipped_steps": "skipped; required: at most 2.0%"},
        healthy=trained(TrainStep, Precision.fp16, "skipped_steps"),
        planted=trained(steps.HugeScale, Precision.fp16, "skipped_steps"),
    ),
    CatalogueRow(
        number=15,
        plant="the scale grows after every step",
        because={"skipped_steps": "skipped; required: at most 2.0%"},
        healthy=trained(TrainStep, Precision.fp16, "skipped_steps"),
        planted=trained(steps.GrowingScale, Precision.fp16, "skipped_steps"),
    ),
    CatalogueRow(
        number=16,
        plant="a summed loss lets the scale collapse",
        because={"final_scale": "between 1024 and", "finite": "loss of step"},
        healthy=trained(TrainStep, Precision.fp16, "final_scale", "finite", optimizer=env.sgd),
        planted=trained(
            TrainStep,
            Precision.fp16,
            "final_scale",
            "finite",
            optimizer=env.sgd,
            criterion=env.summed,
        ),
    ),
    CatalogueRow(
        number=17,
        plant="a batch holds a NaN",
        because={"finite": "running_mean"},
        healthy=trained(TrainStep, Precision.fp16, "finite"),
        planted=trained(TrainStep, Precision.fp16, "finite", nan_at=20),
    ),
    probe_row(
        18,
        "the loss is read in every step",
        steps.LossOnTheHost,
        Precision.bf16,
        {"probe host_waits": "waits for the device"},
    ),
    CatalogueRow(
        number=19,
        plant="an optimizer that is not fused, under the scaler",
        because={"probe host_waits": "waits for the device"},
        healthy=probed(TrainStep, Precision.fp16, host_waits),
        planted=probed(TrainStep, Precision.fp16, host_waits, optimizer=env.adam_not_fused),
    ),
    probe_row(
        20,
        "the fp32 arm computes in TF32",
        steps.TF32InAnFp32Arm,
        Precision.fp32,
        {"probe arithmetic": "float32 is computed as tf32"},
    ),
    probe_row(
        21,
        "the old and the new API of TF32 are mixed",
        steps.MixedApis,
        Precision.fp32,
        {"probe step_count": "raised RuntimeError: PyTorch is checking whether allow_tf32"},
        twin=steps.NewApi,
    ),
    CatalogueRow(
        number=22,
        plant="a layer loses channels_last",
        because={"probe memory_format": "the input of 4 is no longer channels_last"},
        healthy=probed(TrainStep, Precision.bf16, memory_format, model=env.channels_last),
        planted=probed(TrainStep, Precision.bf16, memory_format, model=env.channels_last_lost),
    ),
    CatalogueRow(
        number=23,
        plant="an epoch ends with a ragged batch",
        because={"batches": "batches change their shape"},
        healthy=speed.an_epoch(last=env.BATCH_SIZE),
        planted=speed.an_epoch(last=5),
    ),
    CatalogueRow(
        number=23,
        plant="cudnn.benchmark is off",
        because={"step_time": "at most 1.25x"},
        healthy=speed.without_search(planted=False),
        planted=speed.without_search(planted=True),
        needs_cuda=True,
    ),
    CatalogueRow(
        number=24,
        plant="one operator's kernel became slower",
        because={"step_time": "at most 1.25x"},
        healthy=speed.one_operator(env.two_convolutions),
        planted=speed.one_operator(speed.regressed),
    ),
    CatalogueRow(
        number=25,
        plant="the training loop is inside one autocast region",
        because={"probe sgd_canary": "learns 0.0"},
        healthy=probed(TrainStep, Precision.bf16, sgd_canary),
        planted=in_a_region(probed(TrainStep, Precision.bf16, sgd_canary)),
    ),
    CatalogueRow(
        number=25,
        plant="a CUDA graph is captured with autocast's cache on",
        because={"probe sgd_canary": "learns 0.0"},
        healthy=in_a_region(probed(graphs.Graphed, Precision.bf16, sgd_canary)),
        planted=in_a_region(probed(graphs.GraphedWithCache, Precision.bf16, sgd_canary)),
        needs_cuda=True,
    ),
    probe_row(
        26,
        "the backward pass of a compiled model runs under autocast",
        graphs.CompiledBackwardUnderAutocast,
        Precision.bf16,
        {"probe autocast_in_backward": "autocast is on during the backward pass"},
        twin=graphs.Compiled,
    ),
    CatalogueRow(
        number=27,
        plant="autocast's cache grows with fresh leaves",
        because={"probe memory_slope": "bytes a step"},
        healthy=probed(TrainStep, Precision.bf16, memory_slope, model=env.fresh_leaves),
        planted=in_a_region(
            probed(TrainStep, Precision.bf16, memory_slope, model=env.fresh_leaves)
        ),
    ),
    CatalogueRow(
        number=28,
        plant="the step waits for its data",
        because={"loader": "at most 1.25x"},
        healthy=speed.fed(wait_s=0.0),
        planted=speed.fed(wait_s=0.02),
    ),
    probe_row(
        29,
        "the learning rate goes on after a skipped step",
        steps.ScheduledAnyway,
        Precision.fp16,
        {"probe skipped_step": "the learning rate went from"},
        twin=steps.ScheduledIfTaken,
    ),
    probe_row(
        30,
        "a step changes what is not in its state",
        states.HiddenState,
        Precision.bf16,
        {"probe restored_state": "once the state was put back"},
    ),
    probe_row(
        31,
        "a weight is drawn from no seed",
        states.Unseeded,
        Precision.bf16,
        {"probe equal_seeds": "['0.weight'] differs"},
    ),
    CatalogueRow(
        number=32,
        plant="every tenth step stalls",
        because={"stalls": "at most 1.25x"},
        healthy=speed.stalling(every=None),
        planted=speed.stalling(every=10),
    ),
    graphs.CAPTURED_RATE,
    *passes.PASSES,
    *updates.UPDATES,
    *evaluations.EVALUATIONS,
)
