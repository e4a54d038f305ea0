"""Dead man's switch: red where nothing was evaluated lately, whatever the reason."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perfsuite.__main__ import main
from perfsuite.records.liveness import last_evaluated, why_stale

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)


def verdict(outcome: str, gate: str = "compare step_s") -> dict[str, str]:
    return {"gate": gate, "outcome": outcome, "figure": "1x", "threshold": "1x"}


def night(
    folder: Path, started: str, *verdicts: dict[str, str], hardware: str = "cpu-a", **section: Any
) -> Path:
    """Write a run that came to these verdicts, PASS if none are given."""
    record: dict[str, Any] = {
        "key": "test_a.py::test_a",
        "config": {},
        "metrics": {
            name: {"value": 1.0, "unit": "B" if "bytes" in name else "s", "better": "lower"}
            for each in verdicts
            if (name := each["gate"].partition(" ")[2])
        },
        "verdicts": verdicts or [verdict("PASS")],
    }
    about = {
        "schema": 1,
        "hardware": {"key": hardware, "name": "a"},
        "software": {},
        "started": started,
        "complete": True,
        "items": {"test_a.py::test_a": "passed"},
    }
    document = {
        "perfsuite": about | section,
        "commit_info": {"id": "0" * 40, "dirty": False},
        "benchmarks": [{"extra_info": {"perfsuite": record}}],
    }
    path = folder / hardware / "newest" / f"{len(list(folder.rglob('*.json')))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def stale(
    folder: Path, days: float = 3, hardware: str | None = None, now: datetime = NOW
) -> str | None:
    evaluated, skipped = last_evaluated(sorted(folder.rglob("*.json")), now, hardware)
    return why_stale(evaluated, skipped, now, days)


HEAD = "nothing was evaluated in the last 3 days: "


def test_a_night_that_was_evaluated(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00")
    assert stale(tmp_path) is None
    assert stale(tmp_path, 1) == (
        "nothing was evaluated in the last 1 days: cpu-a: last 2026-01-31 02:17 UTC, 1.4 days ago"
    )


def test_a_red_night_was_evaluated_too(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00", verdict("FAIL"))
    assert stale(tmp_path) is None


def test_no_run_at_all(tmp_path: Path) -> None:
    assert stale(tmp_path) == f"{HEAD}there is no run"
    assert stale(tmp_path / "gone") == f"{HEAD}there is no run"


def test_the_last_night_was_long_ago(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        night(tmp_path, f"2026-01-0{day}T02:17:00+00:00")
    assert stale(tmp_path) == f"{HEAD}cpu-a: last 2026-01-03 02:17 UTC, 29.4 days ago"


BYTES = "compare activation_bytes_per_sample"
INCONCLUSIVE = [verdict("INCONCLUSIVE")]
NOTHING = "came to no verdict"


@pytest.mark.parametrize(
    ("verdicts", "section", "why"),
    [
        (INCONCLUSIVE, {}, f"{NOTHING} (INCONCLUSIVE)"),
        (
            [verdict("NOT GATED"), verdict("INCONCLUSIVE")],
            {},
            f"{NOTHING} (INCONCLUSIVE, NOT GATED",
        ),
        ([*INCONCLUSIVE, verdict("PASS", "probe scaler")], {}, f"{NOTHING} (INCONCLUSIVE)"),
        ([*INCONCLUSIVE, verdict("PASS", "throttling")], {}, f"{NOTHING} (INCONCLUSIVE)"),
        ([*INCONCLUSIVE, verdict("PASS", BYTES)], {}, f"{NOTHING} (INCONCLUSIVE)"),
        ([*INCONCLUSIVE, verdict("PASS", "against ledger")], {}, f"{NOTHING} (INCONCLUSIVE)"),
        ([verdict("PASS", "throttling")], {}, f"{NOTHING} (nothing was judged)"),
        ([], {"complete": False}, "did not run to its end"),
        ([], {"complete": "yes"}, "cannot be used: "),
    ],
    ids=[
        *("unclear", "ungated", "beside", "throttled", "bytes", "counts"),
        *("nothing", "broken-off", "damaged"),
    ],
)
def test_nights_that_evaluated_nothing_do_not_count(
    tmp_path: Path, verdicts: list[dict[str, str]], section: dict[str, Any], why: str
) -> None:
    night(tmp_path, "2026-01-20T02:17:00+00:00")
    night(tmp_path, "2026-01-30T02:17:00+00:00", *verdicts, **section)
    night(tmp_path, "2026-01-31T02:17:00+00:00", *verdicts, **section)
    told = stale(tmp_path)
    assert told is not None
    assert told.startswith(
        f"{HEAD}cpu-a: last 2026-01-20 02:17 UTC, 12.4 days ago; 2 later runs not"
    )
    assert f", the newest (2.json) {why}" in told
    night(tmp_path, "2026-01-31T12:17:00+00:00")
    assert stale(tmp_path) is None


def test_never(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00", *INCONCLUSIVE)
    assert (
        stale(tmp_path) == f"{HEAD}cpu-a: never; the newest run (0.json) {NOTHING} (INCONCLUSIVE)"
    )


def test_bytes_count_where_nothing_else_was_compared(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00", verdict("PASS", BYTES))
    assert stale(tmp_path) is None


def test_gates_of_one_tree_count_where_nothing_was_compared(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00", verdict("PASS", "amp_speedup"))
    assert stale(tmp_path) is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00").write_text("{", encoding="utf-8")
    told = stale(tmp_path)
    assert told is not None
    assert told.startswith(f"{HEAD}no run can be read; 1 file, such as {tmp_path}")
    night(tmp_path, "2026-01-31T02:17:00+00:00", hardware="cpu-b")
    assert stale(tmp_path) is None


def test_each_hardware_is_asked(tmp_path: Path) -> None:
    night(tmp_path, "2026-01-31T02:17:00+00:00")
    night(tmp_path, "2026-01-11T02:17:00+00:00", hardware="nvidia-b")
    night(tmp_path, "2026-01-31T02:17:00+00:00", *INCONCLUSIVE, hardware="nvidia-c")
    told = stale(tmp_path)
    assert told is not None
    assert "cpu-a" not in told
    assert "nvidia-b: last 2026-01-11 02:17 UTC, 21.4 days ago; nvidia-c: never; the" in told
    assert stale(tmp_path, hardware="cpu-a") is None
    assert stale(tmp_path, hardware="cpu-d") == f"{HEAD}there is no run"


@pytest.mark.parametrize(
    ("started", "days_ago"),
    [
        ("2026-01-31T23:00:00-05:00", 8 / 24),  # 04:00 UTC on the next day
        ("2026-02-01T05:00:00+09:00", 16 / 24),
        ("2026-01-31T12:00:00", 1),  # without a zone: UTC
        ("2026-01-31T12:00:00Z", 1),
        ("2026-01-31", 1.5),
        ("2026-02-01T20:00:00+00:00", 0),  # a clock that is ahead by hours
    ],
)
def test_times_of_any_zone_and_of_none(tmp_path: Path, started: str, days_ago: float) -> None:
    night(tmp_path, started)
    (found,), skipped = last_evaluated(tmp_path.rglob("*.json"), NOW)
    assert skipped == []
    assert found.age_days(NOW) == pytest.approx(days_ago)
    assert stale(tmp_path, days_ago + 0.01) is None
    assert (stale(tmp_path, max(days_ago - 0.01, 0.001)) is None) is (days_ago == 0)


@pytest.mark.parametrize(
    ("started", "why"),
    [
        ("2035-01-01T00:00:00+00:00", "is of 2035-01-01, which is yet to come"),
        ("yesterday", "was started at 'yesterday', which is no time"),
        ("0001-01-01T00:00:00+14:00", "which is no time"),
    ],
)
def test_a_date_that_cannot_be_holds_nothing_closed(tmp_path: Path, started: str, why: str) -> None:
    night(tmp_path, started)
    told = stale(tmp_path)
    assert told is not None
    assert why in told
    _, (reason,) = last_evaluated(tmp_path.rglob("*.json"), NOW)
    assert reason.endswith(why)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["history", "--max-age", "3", str(tmp_path)]
    assert main(asked) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"perfsuite: {tmp_path}: {HEAD}there is no run\n")
    night(tmp_path, (datetime.now(UTC) - timedelta(days=4)).isoformat())
    assert main(asked) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    night(tmp_path, (datetime.now(UTC) - timedelta(days=1)).isoformat())
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert out.startswith("cpu-a: last 20")
    assert out.endswith(" UTC, 1.0 days ago\n")
    assert err.startswith(f"skipped: {tmp_path / 'bad.json'}: not valid JSON")


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "three", ""])
def test_an_age_that_is_none(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["history", f"--max-age={days}"])
    assert "is no positive number" in capsys.readouterr().err


def test_a_picture_is_not_drawn_as_well() -> None:
    with pytest.raises(SystemExit):
        main(["history", "--max-age=3", "-o", "a.svg"])
