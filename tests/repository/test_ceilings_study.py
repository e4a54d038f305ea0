"""The study of ceilings tells how far measurements lie apart."""

import ceilings_study
import pytest

from perfsuite.judging.ceilings import Ceilings


def measured(product: float) -> Ceilings:
    return Ceilings(
        products={"fp32": product}, convolutions={"fp32": 3.0}, bytes_per_s=1e9, launch_s=1e-6
    )


@pytest.mark.parametrize(("highest", "code"), [(2.08, 0), (2.2, 1)])
def test_a_ceiling_repeats_or_not(
    highest: float,
    code: int,
    tmp_path: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates = iter([2.0, highest, 2.0, 2.01, 2.0])
    monkeypatch.setattr(ceilings_study, "in_fresh_process", lambda _: measured(next(rates)))
    monkeypatch.setattr(ceilings_study, "STUDIES", tmp_path)
    assert ceilings_study.main(["--device", "cpu"]) == code
    said = capsys.readouterr().out
    assert f"fp32 product: {highest / 2 - 1:.1%} apart in 5 processes" in said
    assert ("too far" in said) == bool(code)


def test_what_could_not_be_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="fp32 product could not be measured: none"):
        ceilings_study.apart([Ceilings(unmeasured={"fp32 product": "none"})])
