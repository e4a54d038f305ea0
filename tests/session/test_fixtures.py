"""A fixture called perf is a benchmark's only where it is perfsuite's own."""

import pytest
from suites import HEAD, Suite, load, timed


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


FOREIGN = {
    "fixture": """
import pytest

@pytest.fixture
def perf():
    return 3

def test_a(perf):
    assert perf == 3
""",
    "parameter": """
import pytest

@pytest.mark.parametrize("perf", [1, 2])
@pytest.mark.parametrize("precision", [3])
def test_a(perf, precision):
    assert perf < precision
""",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_project_whose_own_perf_is_something_else_is_left_alone(
    pytester: pytest.Pytester, text: str
) -> None:
    pytester.makepyfile(text)
    result = pytester.runpytest_inprocess()
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*= perfsuite =*")


def test_a_fixture_that_overrides_perf_and_asks_for_it_is_a_benchmark(suite: Suite) -> None:
    suite.write(
        "conftest.py", "import pytest\n\n@pytest.fixture\ndef perf(perf):\n    return perf\n"
    )
    suite.write("test_steps.py", timed("test_a"))
    result = suite.run()
    result.stdout.fnmatch_lines(["NOT GATED *a step_s*"])


def test_a_benchmark_may_choose_its_own_precisions(suite: Suite) -> None:
    suite.write(
        "test_steps.py",
        "import pytest\n" + HEAD + "\n@pytest.mark.parametrize('precision', ['fp32'])\n"
        "def test_a(perf, precision):\n    measure(perf)\n",
    )
    (entry,) = load(suite.record())["benchmarks"]
    assert entry["params"] == {"precision": "fp32"}
