"""The pytest plugin: options, fixtures, and the hooks that find perfsuite's benchmarks.

It is loaded in every pytest session of its environment, so it imports neither torch nor scipy,
and changes nothing in a session without a benchmark that uses the fixture `perf`. With one,
`perfsuite.session.one_tree` takes over.
"""

import os
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from perfsuite.devices.torchrun import RankError, seat
from perfsuite.session.benchmark_adapter import PytestBenchmark, claim
from perfsuite.session.fixtures import reaches, uses
from perfsuite.session.options import add_options, ranks_of
from perfsuite.session.stash import RANK_FILES, SESSION, TRIES

if TYPE_CHECKING:
    from perfsuite.measuring.bench import Bench
    from perfsuite.measuring.first_step import FreshProcess
    from perfsuite.training.workload import Workload

_COMPARE = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of perfsuite."""
    add_options(parser)
    if RANK_FILES in os.environ:
        from perfsuite.session.launching import take_part

        take_part()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Load no conftest file where others run the benchmarks: both trees' processes, or ranks."""
    options = early_config.known_args_namespace
    if _two_sides(options) or _launches(early_config, options):
        options.noconftest = True


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """With --perf-ranks, let torchrun start the ranks, which run in this session's place."""
    if not _launches(config, config.option):
        return None
    from perfsuite.session.launching import launch

    return launch(config, config.option.perf_ranks)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hide --benchmark-compare from pytest-benchmark until the benchmarks are collected.

    It would load the runs that it compares with, and warn, before that.
    """
    config.addinivalue_line(
        "markers", "one_tree: judges one tree by itself, and is left out with --perf-against"
    )
    config.addinivalue_line(
        "markers", "when_named: takes minutes, and is left out unless its file is named"
    )
    config.addinivalue_line(
        "markers", "one_rank: judges one process, and is left out where torchrun starts several"
    )
    config.addinivalue_line(
        "markers", "many_ranks: judges ranks together, and is left out where there is one"
    )
    wanted = config.getoption("benchmark_compare", [])
    distributed = config.getoption("dist", "no") != "no"
    if _two_sides(config.option):
        if distributed:
            raise pytest.UsageError("--perf-against cannot measure under xdist; run with -n0")
        if wanted:
            raise pytest.UsageError(
                "--benchmark-compare compares with promoted runs, --perf-against with another"
                " tree: use one at a time"
            )
    _be_quiet_beside_rank_0(config)
    if not wanted or distributed:
        return
    if isinstance(wanted, str):
        swallowed = config.invocation_params.dir / wanted.partition("::")[0]
        if swallowed.is_dir() or (swallowed.suffix == ".py" and swallowed.is_file()):
            raise pytest.UsageError(
                f"--benchmark-compare={wanted}: it took the path for its value; write"
                f" `pytest {wanted} --benchmark-compare`"
            )
    from perfsuite.session.collection import may_hold_suites

    if may_hold_suites(config):  # or else it is pytest-benchmark's own business
        config.stash[_COMPARE] = wanted
        config.option.benchmark_compare = []


def _be_quiet_beside_rank_0(config: pytest.Config) -> None:
    """Print no header in another rank of what is asked to run a suite with thresholds."""
    try:
        if seat().leads:
            return
    except RankError:  # told once benchmarks are collected
        return
    from perfsuite.session.collection import names_suite

    if names_suite(config):
        config.option.verbose = min(config.option.verbose, -1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """With --perf-against, start both sides, which collect in this session's place."""
    if not _two_sides(session.config.option):
        return
    from perfsuite.against.comparison_session import start_comparison

    try:
        start_comparison(session)
    except BaseException:
        PytestBenchmark(session.config).save_nothing()
        raise


def _two_sides(options: Namespace) -> bool:
    return options.perf_against is not None or options.perf_against_python is not None


def _launches(config: pytest.Config, options: Namespace) -> bool:
    if options.perf_ranks is None or _two_sides(options) or options.help:
        return False
    if any(getattr(each, "starts_ranks", False) for each in config.pluginmanager.get_plugins()):
        return False
    from perfsuite.session.launching import launches

    return launches(options)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Start a perfsuite session if a benchmark uses the fixture `perf`; else change nothing."""
    if left_out := [each for each in items if _is_left_out(each, session)]:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    if _two_sides(config.option):
        return
    ours = [item for item in items if uses(item)]
    compare = config.stash.get(_COMPARE, False)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not ours and config.option.perf_report is not None and reporter is not None:
        # No error: the option may stand in a configuration file for all sessions.
        reporter.write_line("no report: no benchmark uses the fixture `perf` of perfsuite")
    if (not ours and not compare) or SESSION in config.stash:
        return
    from perfsuite.session.collection import suite_of

    try:
        suite = suite_of(config, ours)
        if suite is not None:
            from perfsuite.against.confirming import Confirmer
            from perfsuite.session.one_tree import start_session

            config.stash[SESSION] = start_session(
                session, suite, items, ours, compare, confirmer=Confirmer
            )
            return
    except pytest.UsageError:
        PytestBenchmark(config).save_nothing()
        raise
    PytestBenchmark(config).compare(compare)


def _is_left_out(item: pytest.Item, session: pytest.Session) -> bool:
    """Tell whether a benchmark waits for its file to be named, or for more or fewer ranks."""
    if item.get_closest_marker("when_named") is not None and not session.isinitpath(item.path):
        return True
    if not (uses(item) and any(map(item.get_closest_marker, ("one_rank", "many_ranks")))):
        return False
    unfit = "one_rank" if ranks_of(session.config) > 1 else "many_ranks"
    return item.get_closest_marker(unfit) is not None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `precision`, `amp` and `reference` with what the device supports.

    What it does not support is not collected, so that nothing needs to be skipped.
    """
    definitions = metafunc._arg2fixturedefs
    given = {
        name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark)
    }
    names = (
        ({"precision", "amp", "reference"} & set(metafunc.fixturenames)) - given - {*definitions}
    )
    if not names or not reaches(definitions, "perf"):
        return
    from perfsuite.session.measured_on import machine_of

    try:
        machine = machine_of(metafunc.config)
    except pytest.UsageError:
        return  # raised again, and then shown as one line, once all is collected
    if "precision" in names:
        metafunc.parametrize("precision", machine.precisions, ids=str)
    if "amp" in names:
        metafunc.parametrize("amp", machine.amp, ids=str)
    if "reference" in names:
        metafunc.parametrize("reference", machine.references, ids="vs-{}".format)


def _names(parametrize: pytest.Mark) -> list[str]:
    names = parametrize.args[0] if parametrize.args else parametrize.kwargs["argnames"]
    return names.replace(",", " ").split() if isinstance(names, str) else list(names)


@pytest.fixture(scope="session")
def workload(request: pytest.FixtureRequest) -> "Workload":
    """What is trained: the tutorial's network, unless `perfsuite.workload` says something else."""
    from perfsuite.session.measured_on import machine_of
    from perfsuite.training.tutorial import tutorial_workload

    option, machine = request.config.option, machine_of(request.config)
    name, whole = option.perf_workload or machine.device.workload, option.perf_epochs is not None
    parallel: Any = (option.perf_parallel or "ddp") if machine.ranks.many else None
    return tutorial_workload(name, option.perf_data, hold_out=whole, parallel=parallel)


@pytest.fixture
def perf_fits(request: pytest.FixtureRequest, perf: "Bench") -> Iterator[Any]:
    """Try a batch in a fresh process; see `perfsuite.measuring.batch_tries`."""
    config = request.config
    if TRIES in config.stash:  # this is one, which goes no further
        config.stash[TRIES](perf)
    if perf.machine.ranks.many:
        pytest.fail("perf_fits tries batches of one rank: mark it one_rank", pytrace=False)
    from perfsuite.against.tries import fresh_processes
    from perfsuite.session.collection import suite_of_file

    with fresh_processes(config, suite_of_file(request.path), perf.notes.key) as fits:
        yield fits


@pytest.fixture
def perf(
    request: pytest.FixtureRequest,
    workload: "Workload",
    benchmark: Any,
) -> Iterator["Bench"]:
    """Build arms, time them, and judge the figures; see `perfsuite.measuring.bench.Bench`."""
    claim(benchmark)
    with request.config.stash[SESSION].bench(request.node, workload) as bench:
        yield bench
        bench.machine.device.end_regions()


@pytest.fixture
def fresh_process(request: pytest.FixtureRequest) -> "FreshProcess":
    """Have a fresh process take the first step of this benchmark's training."""
    from perfsuite.session.fresh_process import in_fresh_process

    return partial(in_fresh_process, request.node)
