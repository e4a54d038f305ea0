"""Accepted ledgers: files that read well in a diff, and the sessions that are held to them."""

import tomllib
from pathlib import Path

import pytest
from suites import Suite, edit, usage_error

from perfsuite.__main__ import main
from perfsuite.judging.counts import Ledger
from perfsuite.records.files import write_part
from perfsuite.records.ledgers import AcceptedLedgers, LedgerError, accept, minor_of, read_ledgers

COUNTED = """
from dataclasses import asdict

import torch

import perfsuite


def test_ledger(perf):
    def step(batch):
        return batch.cos().sum()

    batches = [torch.ones(2, 3)]
    perf.timed([1.0])
    perf.keep("ledger", asdict(perfsuite.count_step(perf.plain(step, batches))))
"""
TORCH = "2.99.1+cpu"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    suite = Suite(pytester, monkeypatch)
    suite.write("test_counted.py", COUNTED)
    return suite


def accepted(suite: Suite) -> Path:
    (path,) = accept([suite.record()], suite.folder)
    return path


def test_what_was_accepted_is_green(suite: Suite) -> None:
    accepted(suite)
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["PASS * ledger * counts are the same *"])


def test_what_costs_more_is_red_and_says_where(suite: Suite) -> None:
    accepted(suite)
    suite.write("test_counted.py", COUNTED.replace("batch.cos()", "batch.double().cos()"))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "CHANGED ledger: * differ; required: as accepted in ledgers/cpu-torch-*.toml",
            "*+1 forward: cast float32 -> float64 (0 -> 1): test_counted.py:11:"
            " return batch.double().cos().sum()",
            "*if that is meant to be so: `perfsuite accept`, and commit ledgers/cpu-torch-*.toml",
        ]
    )


def test_what_costs_less_is_red_too(suite: Suite) -> None:
    accepted(suite)
    suite.write("test_counted.py", COUNTED.replace(".cos()", ""))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*-1 forward: cos float32 (1 -> 0): was test_counted.py:11: *"])


def test_a_change_can_be_accepted(suite: Suite) -> None:
    accepted(suite)
    suite.write("test_counted.py", COUNTED.replace(".cos()", ".sin()"))
    run = suite.folder / "red.json"
    suite.run(f"--benchmark-json={run}").assert_outcomes(failed=1)
    accept([run], suite.folder)
    suite.run().assert_outcomes(passed=1)


def test_nothing_was_accepted_yet(suite: Suite) -> None:
    result = suite.run()
    result.assert_outcomes(passed=1)
    text = " ".join(result.stdout.str().split())
    assert "NOT GATED" in text
    assert "on cpu: `perfsuite accept`" in text


def test_another_torch_is_said_and_not_red(suite: Suite) -> None:
    path = accepted(suite)
    path.rename(path.with_name("cpu-torch-1.99.toml"))
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert "none accepted for torch " in " ".join(result.stdout.str().split())


def test_a_benchmark_that_is_gone_is_red(suite: Suite) -> None:
    accepted(suite)
    suite.write("test_counted.py", COUNTED.replace("test_ledger", "test_other_ledger"))
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["FAIL compare: test_counted.py::test_ledger is in the baseline*ledgers/*"]
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[benchmark", "[[benchmark"),
        ("torch =", "torsh ="),
        (" = 1\n", " = -1\n"),
        (" = 1\n", " = 1.5\n"),
        ("torch", "<<<<<<< HEAD\ntorch"),
    ],
    ids=["no-toml", "unknown-name", "negative", "fraction", "conflict"],
)
def test_a_damaged_file_is_one_line(suite: Suite, old: str, new: str) -> None:
    path = accepted(suite)
    text = path.read_text()
    head, rest = text.split("torch", 1)
    path.write_text(head + ("torch" + rest).replace(old, new, 1))
    assert f"{path}: cannot be read: " in usage_error(suite.run())


def test_a_file_reads_well(suite: Suite) -> None:
    path = accepted(suite)
    lines = path.read_text().splitlines()
    assert '[benchmark."test_counted.py::test_ledger".counts]' in lines
    assert '"forward: cos float32" = 1' in lines
    counts = lines[lines.index('[benchmark."test_counted.py::test_ledger".counts]') + 1 :]
    assert counts == sorted(counts)
    assert tomllib.loads(path.read_text())["device"] == "cpu"


def test_sites_are_kept_beside_and_may_be_lost(suite: Suite) -> None:
    path = accepted(suite)
    path.with_suffix(".sites.json").unlink()
    suite.run().assert_outcomes(passed=1)


def test_ledgers_of_other_benchmarks_stay(suite: Suite) -> None:
    accepted(suite)
    suite.write("test_counted_too.py", COUNTED)
    run = suite.record("test_counted_too.py", name="too.json")
    (path,) = accept([run], suite.folder)
    assert path.read_text().count(".counts]") == 2


def test_the_command_counts_by_itself(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = suite.record()

    def run(command: list[str], **_: object) -> object:
        option = next(each for each in command if each.startswith("--benchmark-json="))
        Path(option.partition("=")[2]).write_bytes(recorded.read_bytes())
        return object()

    monkeypatch.setattr("subprocess.run", run)
    assert main(["accept", f"--suite={suite.folder}"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"accepted {suite.folder / 'ledgers' / 'cpu-torch-'}")


def test_runs_that_are_not_accepted(suite: Suite) -> None:
    run = suite.record()
    cases: list[tuple[list[str | int], object, str]] = [
        (["perfsuite", "complete"], False, "the session did not run to its end"),
        (["perfsuite", "hardware", "key"], "simulated-h100", "its device was simulated"),
        (["benchmarks", 0, "extra_info", "perfsuite", "raw"], {}, "no benchmark of it counts"),
    ]
    for where, value, why in cases:
        bad = suite.folder / "bad.json"
        bad.write_bytes(run.read_bytes())
        edit(bad, where, value)
        with pytest.raises(LedgerError, match=why):
            accept([bad], suite.folder)
    assert not (suite.folder / "ledgers").exists()


def test_no_such_suite_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accept", f"--suite={tmp_path / 'gone'}"]) == 1
    assert capsys.readouterr().err == (
        f"perfsuite: {tmp_path / 'gone'}: no folder of benchmarks; name it with --suite\n"
    )


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    found = read_ledgers(tmp_path, torch=TORCH, device="cpu")
    assert found.path == tmp_path / "ledgers" / "cpu-torch-2.99.toml"
    assert found.ledgers == {}


def test_a_ledger_is_read_as_it_was_written(suite: Suite) -> None:
    path = accepted(suite)
    (found,) = read_ledgers(
        suite.folder, torch=path.stem.removeprefix("cpu-torch-"), device="cpu"
    ).ledgers.values()
    assert isinstance(found, Ledger)
    assert found.counts["forward: cos float32"] == 1
    assert found.sites["forward: cos float32"] == {
        "test_counted.py:11: return batch.cos().sum()": 1
    }


def test_minor_versions() -> None:
    assert [minor_of(each) for each in ("2.14.1+cu130", "2.11.0", "2.15.0a0+git12")] == [
        "2.14",
        "2.11",
        "2.15",
    ]


def test_a_parameter_that_is_gone_is_red(suite: Suite) -> None:
    counted = COUNTED.replace("(perf)", "(perf, kind)").replace(
        "import torch\n", "import pytest\nimport torch\n"
    )
    mark = '@pytest.mark.parametrize("kind", ["a", "b"])\ndef test_'
    suite.write("test_counted.py", counted.replace("def test_", mark))
    accepted(suite)
    suite.write("test_counted.py", counted.replace("def test_", mark.replace(', "b"', "")))
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAIL compare: test_counted.py::test_ledger[[]b[]] is in the*"])


def test_a_precision_that_the_device_lacks_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "ledgers" / "cuda-torch-2.99.toml"
    keys = ["test_a.py::test_ledger[tf32]", "test_a.py::test_ledger[fp32]"]
    known = AcceptedLedgers(
        path=path, torch="2.99", device="cuda", ledgers={key: Ledger() for key in keys}
    )
    assert known.gone([], {"tf32"}) == [keys[1]]
    assert known.gone([], set()) == keys
    assert known.gone(keys, set()) == []


def test_all_files_are_written_or_none(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    run = suite.record()
    written = write_part

    def fails_at_the_second(path: Path, content: bytes) -> Path:
        if path.suffix == ".json":
            raise OSError("no space left on device")
        return written(path, content)

    monkeypatch.setattr("perfsuite.records.files.write_part", fails_at_the_second)
    monkeypatch.setattr("perfsuite.records.ledgers.write_part", fails_at_the_second, raising=False)
    with pytest.raises(OSError, match="no space left"):
        accept([run], suite.folder)
    assert list((suite.folder / "ledgers").iterdir()) == []
