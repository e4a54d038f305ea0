"""The page of sabotage is what its record renders to, and the record is what was run."""

from pathlib import Path

import pytest
import torch

from perfsuite.judging.gates import Outcome, Verdict
from perfsuite.probes.probe import Probe
from perfsuite.probes.registry import PROBES
from sabotage.__main__ import DOCS, devices, main
from sabotage.catalogue import ROWS
from sabotage.record import Record, SabotageEntry, SabotageTrial, encode, merge, read, render, write
from sabotage.row import CatalogueRow, not_green, not_red

PUBLISHED = read(DOCS / "runs" / "sabotage.json")


def verdict(outcome: Outcome, figure: str = "six | seven") -> Verdict:
    return Verdict(gate="finite", outcome=outcome, figure=figure, threshold="must be")


def row(
    planted: Outcome = Outcome.FAIL,
    healthy: Outcome = Outcome.PASS,
    *,
    plant: str = "a bug",
    because: str = "six",
    needs_cuda: bool = False,
) -> CatalogueRow:
    return CatalogueRow(
        number=1,
        plant=plant,
        because={"finite": because},
        healthy=lambda _: (verdict(healthy),),
        planted=lambda _: (verdict(planted),),
        needs_cuda=needs_cuda,
    )


def trial(device: str = "cpu", **changes: object) -> SabotageTrial:
    fields = {
        "device": device,
        "hardware": "a machine",
        "torch": "2.0",
        "date": "2026-01-01",
        "healthy": ["PASS finite: fine"],
        "planted": ["FAIL finite: nan"],
        "faults": [],
    }
    return SabotageTrial(**(fields | changes))  # type: ignore[arg-type]  # fields by name


def test_the_published_page_is_what_its_record_renders_to() -> None:
    assert (DOCS / "sabotage.md").read_text(encoding="utf-8") == render(PUBLISHED)


def test_the_published_record_is_of_this_catalogue() -> None:
    assert merge(PUBLISHED, ROWS, {}) == PUBLISHED


@pytest.mark.parametrize(
    "entry", [e for e in PUBLISHED.entries if not e.needs_cuda], ids=lambda e: e.plant
)
def test_every_bug_that_a_cpu_can_show_is_recorded_red_beside_a_green_twin(
    entry: SabotageEntry,
) -> None:
    (found,) = [each for each in entry.trials if each.device == "cpu"]
    assert found.outcome == "red"
    assert all(line.startswith("PASS ") for line in found.healthy)
    for gate in entry.gates:
        assert any(line.startswith(f"PASS {gate}: ") for line in found.healthy)
        assert any(line.startswith(f"FAIL {gate}: ") for line in found.planted)


OF_A_PRECISION = {"arithmetic", "layer_dtypes", "loss_scale"}  # want what the precision's name says


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_the_published_lines_are_those_of_today(probe: Probe) -> None:
    trials = [trial for entry in PUBLISHED.entries for trial in entry.trials]
    passed = [line for each in trials for line in each.healthy if f" probe {probe.name}: " in line]
    failed = [line for each in trials for line in each.planted if f" probe {probe.name}: " in line]
    assert failed
    if probe.name not in OF_A_PRECISION:
        assert [line for line in passed if not line.endswith(f"; required: {probe.wanted}")] == []
    assert failed == [] or any(line.endswith(f"({probe.remedy})") for line in failed)


def test_a_bug_that_no_machine_has_run_is_said_to_be_so() -> None:
    page = render(merge(Record(entries=[]), [row(needs_cuda=True)], {}))
    assert "| 1 | a bug | finite | | cuda | never run |" in page.splitlines()


def test_a_trial_is_told_by_its_red_lines_device_and_machine() -> None:
    done = trial(planted=["PASS x: y", "FAIL finite: a|b <c>"])
    page = render(merge(Record(entries=[]), [row()], {"a bug": [done]}))
    told = "| 1 | a bug | finite | FAIL finite: a\\|b &lt;c> | cpu | a machine, torch 2.0, "
    assert told + "2026-01-01 |" in page.splitlines()


def test_a_row_that_does_not_hold_says_why() -> None:
    failed = trial(faults=["finite did not fail"])
    page = render(merge(Record(entries=[]), [row()], {"a bug": [failed]}))
    assert "**not red**: finite did not fail" in page
    assert failed.outcome == "not red"


def test_what_this_machine_cannot_run_keeps_what_another_recorded() -> None:
    first = merge(Record(entries=[]), [row()], {"a bug": [trial("cuda"), trial("cpu")]})
    again = trial("cpu", date="2026-02-02")
    second = merge(first, [row()], {"a bug": [again]})
    assert second.entries[0].trials == [again, trial("cuda")]


def test_a_row_that_left_the_catalogue_leaves_the_record() -> None:
    first = merge(Record(entries=[]), [row(), row(plant="old")], {"old": [trial()]})
    assert [entry.plant for entry in merge(first, [row()], {}).entries] == ["a bug"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (row(planted=Outcome.PASS), "finite did not fail"),
        (row(planted=Outcome.INCONCLUSIVE), "finite did not fail"),
        (row(because="eight"), "not with 'eight'"),
        (row(healthy=Outcome.FAIL), "FAIL finite"),
        (row(healthy=Outcome.INCONCLUSIVE), "INCONCLUSIVE finite"),
    ],
    ids=["green", "unsure", "wrong-reason", "sick-twin", "unsure-twin"],
)
def test_the_command_fails_where_a_row_does_not_hold(
    changed: CatalogueRow, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path, [row(plant="another"), changed]) == 1
    assert said in capsys.readouterr().err
    record = read(tmp_path / "runs" / "sabotage.json")
    assert [entry.trials[0].outcome for entry in record.entries] == ["red", "not red"]


def test_the_command_records_what_it_ran(tmp_path: Path) -> None:
    assert main(tmp_path, [row(), row(plant="on cuda", needs_cuda=True)]) == 0
    record = read(tmp_path / "runs" / "sabotage.json")
    ran = record.entries[0].trials[0]
    assert ran.planted == ["FAIL finite: six | seven; required: must be"]
    assert ran.healthy == ["PASS finite: six | seven; required: must be"]
    assert ran.torch == torch.__version__
    assert (tmp_path / "sabotage.md").read_text(encoding="utf-8") == render(record)
    assert bool(record.entries[1].trials) is torch.cuda.is_available()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_row_that_raises_is_one_that_does_not_hold(tmp_path: Path) -> None:
    def broken(_: torch.device) -> tuple[Verdict, ...]:
        raise OSError("no room\nat all")

    raising = CatalogueRow(
        number=2, plant="raises", because={"finite": ""}, healthy=broken, planted=broken
    )
    assert main(tmp_path, [raising]) == 1
    assert "raised OSError: no room |" in (tmp_path / "sabotage.md").read_text(encoding="utf-8")


def test_a_verdict_that_is_missing_is_no_green_twin() -> None:
    assert not_green(row(), []) == ["finite was not judged"]
    assert not_red(row(), []) == ["finite did not fail"]


def test_a_row_that_needs_cuda_never_runs_on_a_cpu() -> None:
    assert torch.device("cpu") in devices(row())
    assert torch.device("cpu") not in devices(row(needs_cuda=True))


def test_a_damaged_record_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs" / "sabotage.json"
    write(path, "{")
    assert main(tmp_path, [row()]) == 1
    assert f"{path}: cannot be read: Input data was truncated" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "{"


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = merge(Record(entries=[]), [row()], {"a bug": [trial()]})
    write(tmp_path / "record.json", encode(record))
    assert read(tmp_path / "record.json") == record
