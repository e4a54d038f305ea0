"""What has to pass before a change lands, wherever it is asked for: make, git and GitHub."""

import re
import tomllib
from pathlib import Path
from typing import Any

import lowest
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def jobs() -> dict[str, Any]:
    path = ROOT / ".github" / "workflows" / "tests.yml"
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert isinstance(found, dict)
    return found


def recipe(target: str) -> list[str]:
    (body,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    return [line.strip() for line in body.splitlines()]


def test_git_runs_before_a_commit_what_make_check_runs() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (local,) = yaml.safe_load(text)["repos"]
    hooks = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    checks = [line.replace("$(BIN)/", ".venv/bin/") for line in recipe("check")]
    assert hooks == [re.sub(r"( --check)? \.$", "", line) for line in checks]


def test_make_test_runs_every_test_once() -> None:
    fast, slow = recipe("test")
    assert '-m "not slow"' in fast
    assert slow.endswith('-m "slow and not examples"')
    assert recipe("examples")[0].endswith(" tests/examples")


def test_ci_holds_the_coverage_to_its_floor_where_python_counts_lines_for_free() -> None:
    fast, _ = recipe("test")
    assert fast == 'COVERAGE_CORE=sysmon $(TESTS) -m "not slow" $(COVER)'
    (cover,) = re.findall("^COVER = .*$", MAKEFILE, flags=re.MULTILINE)
    assert "--cov " in cover
    assert "(3, 12)" in cover
    assert "--cov-fail-under" not in cover  # it would go before pyproject.toml's
    assert PROJECT["tool"]["coverage"]["report"]["fail_under"] > 0
    check = jobs()["check"]
    assert "3.13" in check["strategy"]["matrix"]["python"]
    assert {"run": "make test"} in check["steps"]


def test_no_job_can_fail_unseen() -> None:
    found = jobs()
    assert set(found.pop("required")["needs"]) == set(found)


def test_the_fast_tests_run_from_the_oldest_python_on() -> None:
    pythons = jobs()["fast"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]


def test_the_lowest_versions_are_those_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowest.main([str(ROOT / "pyproject.toml")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert set(printed) > {
        "pytest-benchmark==5.3",
        "transformers==5.24",
    }  # an upper bound; an extra
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = {*PROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)}
    assert len(printed) == len(asked)


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    number, date = re.findall(r"^## (\S+) \((.+)\)$", text, flags=re.MULTILINE)[0]
    assert PROJECT["project"]["version"] == number + ".dev0" * (date == "unreleased")


@pytest.mark.parametrize("dependency", ["torch", "torch<3", "torch~=2.0", "torch>=2; extra == 'a'"])
def test_a_dependency_without_a_plain_lower_bound_is_refused(
    tmp_path: Path, dependency: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(f'[project]\ndependencies = ["{dependency}"]\n', encoding="utf-8")
    assert lowest.main([str(path)]) == 1
    assert capsys.readouterr().err == f"lowest: {dependency}: no lower bound, such as name>=1.2\n"
