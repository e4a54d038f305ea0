"""What a session measures on is asked for once, also where there is none."""

from typing import Any

import pytest

from perfsuite.devices.torchrun import RankError
from perfsuite.session import measured_on
from perfsuite.session.measured_on import machine_of


def test_ranks_that_cannot_work_together_are_not_asked_again(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(wanted: str) -> None:
        asked.append(wanted)
        raise RankError("the ranks are not alike")

    monkeypatch.setattr(measured_on, "machine", refuse)
    config = pytester.parseconfig()
    for _ in range(3):
        with pytest.raises(pytest.UsageError, match=r"^the ranks are not alike$"):
            machine_of(config)
    assert asked == ["auto"]


def test_a_worker_of_xdist_takes_no_rank(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    config: Any = pytester.parseconfig()
    config.workerinput = {}
    with pytest.raises(
        pytest.UsageError, match=r"^ranks cannot measure under xdist; run with -n0$"
    ):
        machine_of(config)
