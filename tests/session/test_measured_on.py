"""What a session measures on is asked for once, also where there is none."""

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
