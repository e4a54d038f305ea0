"""Cards that stand for real ones: the CPU computes a step, and the card says how long it took."""

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from perfsuite.devices.cards import CARDS, Card, Spell
from perfsuite.devices.choice import choose_device, device_again, device_of
from perfsuite.devices.device import HOST, DeviceError
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated
from perfsuite.measuring.profiling import profile
from perfsuite.measuring.timing import time_block
from perfsuite.training.arm import Arm
from perfsuite.training.tutorial import tutorial_workload


@pytest.fixture
def h100() -> Iterator[Simulated]:
    device = choose_device("simulated:h100")
    assert isinstance(device, Simulated)
    yield device
    choose_device("cpu")


def arm_on(device: Simulated, precision: Precision) -> Arm:
    return tutorial_workload("tiny", "synthetic").arm(precision, device.place)


@pytest.mark.parametrize(
    ("precision", "kernels_ms", "host_ms"),
    [("fp32", (6, 9), (2.3, 3.5)), ("tf32", (2.8, 3.6), (2.3, 3.5))]
    + [(half, (2.0, 2.6), (3.0, 4.5)) for half in ("fp16", "bf16")],
)
def test_a_step_of_the_tutorial_takes_what_an_h100_is_estimated_to_take(
    h100: Simulated, precision: str, kernels_ms: tuple[float, float], host_ms: tuple[float, float]
) -> None:
    arm = arm_on(h100, Precision(precision))
    time_block(arm, h100.clock(), 1)
    before_s, launched = h100.busy_s, _launches(h100)
    block = time_block(arm, h100.clock(), 2)
    busy_ms = (h100.busy_s - before_s) / 2e-3
    launching_ms = (_launches(h100) - launched) * h100.card.launch_s / 2e-3
    assert kernels_ms[0] < busy_ms < kernels_ms[1]
    assert host_ms[0] < launching_ms < host_ms[1]
    assert block.step_s * 1e3 == pytest.approx(max(busy_ms, launching_ms), rel=0.1)


def _launches(device: Simulated) -> int:
    return sum(calls for _, calls in (device.charged or {}).values())


def test_a_step_takes_the_same_however_busy_the_cpu_is(h100: Simulated) -> None:
    def step_s() -> float:
        device = choose_device("simulated:h100")
        assert isinstance(device, Simulated)
        return time_block(arm_on(device, Precision.fp32), device.clock(), 1).step_s

    assert step_s() == step_s()


def test_time_passes_while_a_clock_runs_and_not_else(h100: Simulated) -> None:
    arm = arm_on(h100, Precision.fp32)
    (batch,) = arm.take(1)
    arm.step(batch)
    assert h100.now_s == 0


def test_halves_are_multiplied_as_float32_and_rounded(h100: Simulated) -> None:
    clock, values = h100.clock(), torch.randn(8, 8)
    clock.start()
    found = values.half() @ values.half()
    clock.stop()
    assert found.dtype is torch.float16
    assert torch.equal(found, (values.half().float() @ values.half().float()).half())


def test_a_value_that_is_read_waits_for_the_kernels(h100: Simulated) -> None:
    clock, values = h100.clock(), torch.ones(64, 64)
    clock.start()
    total: Tensor = (values @ values).sum()
    ahead_s = h100.now_s
    total.item()
    assert h100.now_s > ahead_s
    clock.stop()


def test_a_count_of_steps_that_lies_on_the_host_is_read_without_blame(h100: Simulated) -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())  # neither fused nor capturable
    clock = h100.clock()
    clock.start()
    for _ in range(2):
        model(torch.ones(2, 4)).sum().backward()
        with h100.host_waits_raise():
            optimizer.step()
    clock.stop()


def test_memory_is_that_of_the_card_and_comes_back(h100: Simulated) -> None:
    trained = [arm_on(h100, Precision.fp32)]

    def two() -> None:
        for batch in trained[0].take(2):
            trained[0].step(batch)

    peak = h100.peak_memory(two, two)
    assert 0.2 * 2**30 < peak.allocated_bytes < 8 * 2**30
    assert h100.growth_bytes(two, two) == 0
    trained.clear()
    gc.collect()
    assert h100.used_bytes == 0


def test_a_batch_that_does_not_fit_is_pytorchs_own_error() -> None:
    device = Simulated(Card(memory_bytes=1000, flop_per_s={"fp32": 1.0}))
    clock = device.clock()
    clock.start()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(1000).add(1)
    finally:
        clock.stop()


def test_a_profile_is_of_the_kernels_of_the_simulation(h100: Simulated) -> None:
    arm = arm_on(h100, Precision.fp16)
    time_block(arm, h100.clock(), 1)
    before_s = h100.busy_s
    told = profile(arm, h100)
    assert "aten::convolution_backward" in told.operators
    steps = 20
    total_s = sum(each.self_s for each in told.operators.values())
    assert total_s == pytest.approx((h100.busy_s - before_s) / steps, rel=0.05)


def test_a_spell_comes_again() -> None:
    spell = Spell(start_s=1.0, end_s=2.0, speed=0.5, every_s=10.0)
    lasts = {at_s for at_s in (0.5, 1.0, 2.0, 11.5, 12.0) if spell.at(at_s)}
    assert lasts == {1.0, 11.5}
    met = {at_s for at_s in (0.0, 1.5, 2.0, 10.5, 12.0, 20.5) if spell.within(at_s, at_s + 1.0)}
    assert met == {1.5, 10.5, 20.5}


def test_a_card_of_an_older_kind_lacks_what_it_lacks() -> None:
    device = Simulated(CARDS["t4"])
    assert device.precisions == (Precision.fp32, Precision.fp16)
    assert device.why_not(Precision.bf16) == "NVIDIA Tesla T4, simulated: it has no such arithmetic"


def test_a_power_cap_lowers_the_clock_and_is_no_throttling() -> None:
    device = Simulated(CARDS["h100-capped"])
    sensor = device.sensor()
    before = sensor.read()
    for _ in range(100):
        device.launch(1e-3)
    after = sensor.read()
    assert after.sm_mhz == round(0.8 * 1980)
    assert sensor.held_back(before, after) == ()


def test_what_lies_on_the_cpu_is_the_simulated_devices_until_another_is_chosen() -> None:
    chosen = choose_device("simulated:t4")
    assert device_of(HOST) is chosen
    assert device_again("simulated:t4", HOST).kind == "simulated"
    choose_device("cpu")
    assert device_of(HOST).kind == "cpu"


def test_a_card_that_nobody_knows_is_refused() -> None:
    with pytest.raises(DeviceError, match="no card 'b200' is simulated, only h100"):
        choose_device("simulated:b200")
    choose_device("cpu")
