"""The study of ceilings tells how far measurements lie apart."""

from pathlib import Path

import ceilings_study
import msgspec
import pytest
from documents import DOCS

from perfsuite.judging.ceilings import Ceilings


def measured(product: float) -> Ceilings:
    return Ceilings(
        products={"fp32": product}, convolutions={"fp32": 3.0}, bytes_per_s=1e9, launch_s=1e-6
    )


@pytest.mark.parametrize(("highest", "code"), [(2.08, 0), (2.2, 1)])
def test_a_ceiling_repeats_or_not(
    highest: float,
    code: int,
    tmp_path: Path,
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
    (written,) = tmp_path.glob("*.md")
    row = next(line for line in written.read_text("utf-8").splitlines() if "fp32 product" in line)
    assert row.endswith("| no |" if code else "| yes |")


@pytest.mark.parametrize(
    "path", [*(DOCS / "studies").glob("ceilings-*.json")], ids=lambda p: p.stem
)
def test_pages_say_what_was_recorded(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=ceilings_study.CeilingsStudy)
    assert (
        path.with_suffix(".md").read_text("utf-8").rstrip() == ceilings_study.page(study).rstrip()
    )


def test_what_could_not_be_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="fp32 product could not be measured: none"):
        ceilings_study.by_ceiling([Ceilings(unmeasured={"fp32 product": "none"})])
