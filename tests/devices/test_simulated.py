"""The simulated device does what its card says, to the last digit, and the same twice."""

import math
from itertools import pairwise
from statistics import stdev

import pytest
import torch

from perfsuite.devices.cards import Card, Spell
from perfsuite.devices.device import HostWaitError
from perfsuite.devices.precision import Precision
from perfsuite.devices.simulated import Simulated


def timed(device: Simulated, kernels: int, kernel_s: float) -> tuple[float, float]:
    """Return wall and device seconds of some kernels."""
    clock = device.clock()
    clock.start()
    for _ in range(kernels):
        device.launch(kernel_s)
    wall_s, device_s = clock.stop()
    assert device_s is not None
    return wall_s, device_s


def test_a_slow_host_is_what_a_launch_bound_step_takes() -> None:
    device = Simulated(Card(launch_s=0.01))
    wall_s, device_s = timed(device, 100, 0.001)
    assert (wall_s, device_s) == pytest.approx((1.001, 1.001))  # events hold the gaps too
    assert device.busy_s == pytest.approx(0.1)


def test_a_busy_device_is_what_a_compute_bound_step_takes() -> None:
    device = Simulated(Card(launch_s=0.001))
    wall_s, _ = timed(device, 100, 0.01)
    assert wall_s == pytest.approx(1.001)
    assert device.busy_s == pytest.approx(1.0)


def test_the_host_runs_ahead_of_the_device_only_as_far_as_the_queue_is_deep() -> None:
    device = Simulated(Card(launch_s=0.0, queue_depth=10))
    for _ in range(10):
        device.launch(1.0)
    assert device.now_s == 0.0
    device.launch(1.0)
    assert device.now_s == 1.0


def test_the_clock_rises_from_rest_and_falls_back() -> None:
    device = Simulated(Card(launch_s=0.0, full_mhz=2000, idle_mhz=500, ramp_s=1.0))
    assert device.mhz(0.0) == 500
    device.launch(0.25)  # a quarter of the speed
    device.synchronize()
    assert device.now_s == pytest.approx(1.0)
    device.launch(1.0)
    device.synchronize()
    assert device.now_s == pytest.approx(2.0)  # full speed by now
    device.host(5.0)
    assert device.sensor().read().sm_mhz == 500


@pytest.mark.parametrize("kind", ["held_back", "neighbours"])
def test_a_spell_makes_kernels_slower_while_it_lasts(kind: str) -> None:
    spell = Spell(start_s=1.0, end_s=3.0, speed=0.5)
    device = Simulated(Card(launch_s=0.0, **{kind: (spell,)}))  # type: ignore[arg-type]  # of a name
    assert [timed(device, 1, 1.0)[0] for _ in range(3)] == [1.0, 2.0, 1.0]


def test_throttling_is_told_once_and_a_neighbour_while_it_is_there() -> None:
    spell = Spell(start_s=1.0, end_s=2.0, speed=0.5)
    device = Simulated(Card(held_back=(spell,), neighbours=(spell,)))
    sensor = device.sensor()
    readings = []
    for _ in range(4):
        readings.append(sensor.read())
        device.host(1.0)
    held = [sensor.held_back(a, b) for a, b in pairwise(readings)]
    assert held == [(), ("simulated slowdown",), ()]
    assert [reading.other_processes for reading in readings] == [0, 1, 0, 0]


def test_kernels_scatter_within_a_process_as_the_card_says() -> None:
    device = Simulated(Card(launch_s=0.0, within=0.05))
    logs = [math.log(timed(device, 1, 1.0)[0]) for _ in range(2000)]
    assert stdev(logs) == pytest.approx(0.05, rel=0.1)


def test_processes_differ_as_the_card_says() -> None:
    card = Card(launch_s=0.0, between=0.02)
    logs = [math.log(timed(Simulated(card, process=n), 1, 1.0)[0]) for n in range(2000)]
    assert stdev(logs) == pytest.approx(0.02, rel=0.1)


def test_the_same_card_and_process_say_the_same() -> None:
    card = Card(within=0.1, between=0.1, seed=7)
    first, again, other = (timed(Simulated(card, process=n), 5, 1.0) for n in (3, 3, 4))
    assert first == again != other


def test_memory_runs_out_with_pytorchs_own_error() -> None:
    device = Simulated(Card(memory_bytes=100))
    device.allocate(80)
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate 30 bytes; 20 are free"):
        device.allocate(30)
    device.allocate(-80)
    device.allocate(100)


def test_a_peak_is_of_what_is_measured_and_above_what_was_there() -> None:
    device = Simulated()
    device.allocate(1000)

    def step() -> None:
        device.allocate(50)
        device.allocate(-50)

    peak = device.peak_memory(lambda: device.allocate(10), step)
    assert (peak.allocated_bytes, peak.alloc_retries) == (60, 0)


def test_growth_is_of_what_is_measured() -> None:
    device = Simulated()
    assert device.growth_bytes(lambda: device.allocate(10), lambda: device.allocate(3)) == 3


def test_a_wait_of_the_host_is_seen_where_it_is_not_allowed() -> None:
    device = Simulated(Card(launch_s=0.0))
    device.launch(1.0)
    with pytest.raises(HostWaitError), device.host_waits_raise():
        device.wait()
    device.wait()
    assert device.now_s == 1.0


def test_a_synchronisation_is_a_wait_where_that_is_not_allowed() -> None:
    device = Simulated()
    with pytest.raises(HostWaitError, match="synchronizes"), device.host_waits_raise():
        device.synchronize()
    device.synchronize()


def test_it_names_itself_and_can_do_everything() -> None:
    device = Simulated(Card(name="Imaginary 9000"))
    assert device.hardware().key == "simulated-imaginary-9000-x1"
    assert device.precisions == tuple(Precision)
    assert "Imaginary 9000" in device.software()["simulated"]
