"""The environment of a run, and which earlier run it is compared with."""

import re
from pathlib import Path

from reports import content, published, report

MEMORY = "test_amp_memory[bf16]"


def test_software_that_changed_comes_first(tmp_path: Path) -> None:
    now = published(MEMORY)
    was = now["perfsuite"]["software"]["torch"]
    now["perfsuite"]["software"]["torch"] = "99.0"
    found = report(tmp_path, published(MEMORY), now)
    assert f"| torch | {was} | 99.0 |" in found.markdown
    assert re.search(rf"torch \(changed\)</td><td>{re.escape(was)}</td><td>99.0<", found.html)


def test_the_baseline_is_the_before_if_it_is_there(tmp_path: Path) -> None:
    document = published(MEMORY)
    document["perfsuite"]["baseline"] = ["2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00"]
    found = content(tmp_path, *[published(MEMORY)] * 4, document)
    assert found.page.environment.note == "before: the run of 2026-01-01 01:00, run1.json"
    document["perfsuite"]["baseline"] = ["2025-01-01T00:00:00+00:00"]
    found = content(tmp_path, *[published(MEMORY)] * 4, document)
    note = found.page.environment.note
    assert note.endswith("run3.json; it is not part of the baseline that verdicts compare with")


def test_a_run_without_a_past_is_compared_with_nothing(tmp_path: Path) -> None:
    environment = content(tmp_path, published(MEMORY)).page.environment
    assert not environment.compared
    assert environment.differences == []
    assert {row.name for row in environment.rows} >= {"torch", "python", "commit"}
