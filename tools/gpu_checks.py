"""Five short checks of a device: ``python tools/gpu_checks.py NAME --device cuda --out FILE``.

Each writes figures by name, as JSON: what `gpu_evidence` holds against what was predicted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perfsuite.devices.choice import choose_device
from perfsuite.devices.device import Device
from perfsuite.devices.precision import Precision, backend_flags
from perfsuite.measuring.kernels import kernels_of
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block, warm_up
from perfsuite.training.arm import Arm
from perfsuite.training.tutorial import tutorial_workload

GpuFigures = dict[str, Any]
BATCHES, WARM_UP, STEPS, PROCESSES, READINGS = (128, 256, 512, 1024), 3, 10, 5, 100
BUSY_S = 2.0


def arm_on(device: Device, precision: Precision, seed: int = 0) -> Arm:
    """Return a fresh arm of what the suite trains there, on noise."""
    return tutorial_workload(device.workload, "synthetic").arm(precision, device.place, seed)


def host_share(device: Device) -> GpuFigures:
    """How much of a block the host launches for: nearly all of it where it holds up the device."""
    found: GpuFigures = {}
    for precision in device.precisions:
        arm, clock = arm_on(device, precision), device.clock()
        for doublings, size in enumerate(BATCHES):
            enlarged = arm.enlarged(doublings)
            time_block(enlarged, clock, WARM_UP)
            block = time_block(enlarged, clock, STEPS)
            found[f"step_ms {precision} {size}"] = block.wall_s * 1e3
            if block.host_s is not None:
                found[f"host_share {precision} {size}"] = block.host_s / block.wall_s
                found[f"host_ms {precision} {size}"] = block.host_s * 1e3
    return found


def kernels(device: Device) -> GpuFigures:
    """Kernel time and launches of a step, beside the step that is not profiled."""
    found: GpuFigures = {}
    for precision in device.precisions:
        arm, clock = arm_on(device, precision), device.clock()
        warm_up(arm, clock, steps=2)
        step_s = time_block(arm, clock, STEPS).step_s
        if (launched := kernels_of(arm, device)) is not None:
            found[f"kernel_ms {precision}"] = launched.kernel_s * 1e3
            found[f"launches {precision}"] = launched.launches
        told = profile(arm, device)
        with torch.profiler.profile(activities=device.profiler_activities()):
            profiled_s = time_block(arm, clock, STEPS).step_s
        found |= {
            f"layouts {precision}": told.layouts,
            f"casts {precision}": told.casts,
            f"inflation {precision}": profiled_s / step_s,
        }
    return found


def sensor(device: Device) -> GpuFigures:
    """What the device calls itself, what a reading costs, and its clock while busy and after."""
    hardware, reader = device.hardware(), device.sensor()
    started_s = time.perf_counter()
    for _ in range(READINGS):
        reader.read()
    reading_ms = (time.perf_counter() - started_s) / READINGS * 1e3
    values, clock = torch.randn(1024, 1024, device=device.place), device.clock()
    before = reader.read()
    clock.start()
    until_s = device.time_s() + BUSY_S
    while device.time_s() < until_s:
        values = (values @ values).clamp(-1, 1)
        device.synchronize()
    busy = reader.read()
    clock.stop()
    time.sleep(0.001)
    after = reader.read()
    return {
        "key": hardware.key,
        "memory_bytes": hardware.memory_bytes,
        "reading_ms": reading_ms,
        "busy_mhz": busy.sm_mhz,
        "rested_mhz": after.sm_mhz,
        "held_back": list(reader.held_back(before, after)),
    }


def steps(device: Device) -> GpuFigures:
    """The step time of each precision, in this process."""
    found: GpuFigures = {}
    for precision in device.precisions:
        arm, clock = arm_on(device, precision), device.clock()
        warm_up(arm, clock, steps=2)
        times_s = [time_block(arm, clock, STEPS).step_s for _ in range(5)]
        found[str(precision)] = statistics.median(times_s)
    return found


def spread(device: Device, asked: str) -> GpuFigures:
    """How much fresh processes differ; whether a seed gives the same losses, a dtype the same mask.

    The spread is the standard deviation of the logarithm of the step times, about.
    """
    told = [json.loads(_own_process("steps", asked)) for _ in range(PROCESSES)]
    found: GpuFigures = {}
    for precision in device.precisions:
        times_s = [each[str(precision)] for each in told]
        found[f"spread {precision}"] = statistics.stdev(times_s) / statistics.fmean(times_s)
    losses = []
    for _ in range(2):
        arm = arm_on(device, Precision.fp32)
        losses.append([float(arm.step(batch)) for batch in arm.take(5)])
    found["repeats_bit_for_bit"] = losses[0] == losses[1]
    masks = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        with backend_flags(Precision.fp32):
            dropped = nn.functional.dropout(torch.ones(4096, device=device.place, dtype=dtype))
        masks.append(dropped != 0)
    found["same_masks"] = all(torch.equal(masks[0], mask) for mask in masks)
    return found


def _own_process(check: str, device: str) -> str:
    command = [sys.executable, __file__, check, f"--device={device}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


CHECKS: dict[str, Callable[[Device], GpuFigures]] = {
    "host_share": host_share,
    "kernels": kernels,
    "sensor": sensor,
    "steps": steps,
}


def main() -> None:
    """Run a check, and write or print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=[*CHECKS, "spread"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    found = spread(device, given.device) if given.check == "spread" else CHECKS[given.check](device)
    text = json.dumps(found, indent=2)
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
