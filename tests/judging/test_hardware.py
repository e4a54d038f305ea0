"""A GPU has one key, whatever its driver reserves and however it calls itself."""

import pytest

from perfsuite.judging.hardware import current_key, gpu_key


@pytest.mark.parametrize(
    ("name", "reported", "key"),
    [
        ("tesla-t4", (14.56, 14.75, 15.0), "nvidia-tesla-t4-x1-16gib"),
        ("quadro-rtx-6000", (22.15, 23.64), "nvidia-quadro-rtx-6000-x1-24gib"),
        ("grid-t4-8q", (7.5, 7.98), "nvidia-grid-t4-8q-x1-8gib"),
        ("nvidia-a10g", (22.04, 22.49), "nvidia-a10g-x1-24gib"),
        ("nvidia-a100-sxm4-40gb", (39.39, 39.56), "nvidia-a100-sxm4-40gb-x1-40gib"),
        ("nvidia-l40s", (44.31, 44.99, 47.4), "nvidia-l40s-x1-48gib"),
        ("nvidia-h100-80gb-hbm3", (79.11, 79.65), "nvidia-h100-80gb-hbm3-x1-80gib"),
        ("nvidia-geforce-gtx-1080-ti", (10.57, 10.91), "nvidia-geforce-gtx-1080-ti-x1-12gib"),
        ("nvidia-geforce-rtx-3080", (9.65, 9.78), "nvidia-geforce-rtx-3080-x1-10gib"),
        ("nvidia-h200", (139.72, 140.4), "nvidia-h200-x1-144gib"),
    ],
)
def test_the_key_of_a_gpu_depends_on_neither_driver_nor_vendors_name(
    name: str, reported: tuple[float, ...], key: str
) -> None:
    assert {gpu_key(name, gib) for gib in reported} == {key}
    # As an earlier perfsuite wrote it, on a machine with some number of GPUs.
    assert {current_key(f"{name}-x{n}-{round(gib)}gib") for gib in reported for n in (1, 8)} == {
        key
    }
    assert current_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("cpu-amd-epyc-x2", "simulated-h100-x1-80gib", "other", ""),
        *("nvidia-h200-x1-144gib-ranks-32x8", "cpu-amd-epyc-x2-ranks-1x2"),
    ],
)
def test_a_key_of_other_hardware_stays(key: str) -> None:
    assert current_key(key) == key
