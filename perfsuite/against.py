"""`--perf-against`: a session that lets two trees take turns, and says what changed.

It coordinates two servers, one with each tree's code (`perfsuite.stage`), and imports neither
torch nor a benchmark: what the servers collected stands in this session as items of the same
names, so that node ids, -k, -m, -x and reports work as they do for any other test.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.utils import NameWrapper

from perfsuite.changes import Restart, could_not_run, is_counted, verdicts
from perfsuite.checkout import CheckoutError
from perfsuite.collected import arguments, refuse_what_switches_gates_off, suites_asked_for
from perfsuite.duet import Duet
from perfsuite.gates import Outcome, Verdict
from perfsuite.ledger import Ledger
from perfsuite.replay import Replay, hand_over
from perfsuite.restarts import starting_order, take_turns
from perfsuite.sampling import sample
from perfsuite.sides import SideError, Worker
from perfsuite.stage import Stage, StageError, Wanted, misplaced, set_stage
from perfsuite.standins import Offered, StandIn, stand_in_for_file
from perfsuite.thresholds import FILE_NAME, Thresholds, ThresholdsError, load_thresholds

__all__ = ["Against", "start_against"]

_MIN_QUADS, _MAX_QUADS = 2, 12


def start_against(session: pytest.Session) -> None:
    """Set the stage, and register the session that compares.

    Raises:
        UsageError: the options do not go together, or the two sides cannot be compared.
    """
    config = session.config
    refuse_what_switches_gates_off(config, (), compare=False)
    suites = suites_asked_for(config)
    if len(suites) != 1:
        found = ", ".join(sorted(map(str, suites))) or f"no folder with a {FILE_NAME}"
        raise pytest.UsageError(f"--perf-against compares one suite; the arguments name {found}")
    suite = suites.pop()
    folder = config.invocation_params.dir.resolve()
    python = config.getoption("perf_against_python")
    wanted = Wanted(
        ref=config.getoption("perf_against"),
        python=None if python is None else str(folder / Path(python).expanduser()),
        folder=folder,
        rootdir=config.rootpath.resolve(),
        suite=suite,
        paths=sorted({place for place, _ in arguments(config)}),
        options=_options_of_the_sides(config),
    )
    # Ended when pytest is, however it ends.
    stack = ExitStack()
    config.add_cleanup(stack.close)
    try:
        stage = stack.enter_context(set_stage(wanted))
        key = stage.offers["after"].hardware["key"]
        thresholds = load_thresholds(suite / FILE_NAME, key)
    except (CheckoutError, SideError, StageError, ThresholdsError) as error:
        raise pytest.UsageError(f"--perf-against: {error}") from None
    against = Against(config, suite=suite, stage=stage, thresholds=thresholds)
    config.pluginmanager.register(against, "perfsuite-against")


def _options_of_the_sides(config: pytest.Config) -> list[str]:
    """Return the options under which the sides' own pytest collects, and nothing else."""
    option = config.option
    workload = option.perf_workload
    return [
        "--override-ini=addopts=",  # of this session, and not of theirs
        *(f"--override-ini={each}" for each in option.override_ini or ()),
        *(f"-p{plugin}" for plugin in option.plugins or ()),
        "-pno:cacheprovider",
        "--capture=no",
        "--continue-on-collection-errors",
        f"--import-mode={option.importmode}",
        f"--perf-device={option.perf_device}",
        f"--perf-data={option.perf_data}",
        *([f"--perf-workload={workload}"] if workload is not None else ()),
    ]


class Against(Ledger):
    """The session: for each benchmark it pairs processes of both sides until it can tell."""

    def __init__(
        self, config: pytest.Config, *, suite: Path, stage: Stage, thresholds: Thresholds
    ) -> None:
        super().__init__(config)
        self._suite = suite
        self._stage = stage
        self._thresholds = thresholds

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector:
        """Collect what the side after has of a file, without importing it."""
        offer = self._stage.offers["after"]
        prefix, error = None, None
        if module_path.is_relative_to(self._suite):
            prefix = module_path.relative_to(self._suite).as_posix()
            error = offer.errors.get(prefix)
        members = {
            key.partition("::")[2]: Offered(key=key, markers=tuple(markers))
            for key, markers in offer.items.items()
            if key.partition("::")[0] == prefix
        }
        return stand_in_for_file(parent, module_path, members, self.compare, error)

    def key_of(self, item: pytest.Item) -> str | None:
        """Return the key of the benchmark that an item stands for."""
        return item.key if isinstance(item, StandIn) else None

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what judges one tree by itself."""
        alone = [item for item in items if item.get_closest_marker("one_tree")]
        if not alone:
            return
        items[:] = [item for item in items if item not in alone]
        config.hook.pytest_deselected(items=alone)
        names = sorted({item.name.partition("[")[0] for item in alone})
        self.pages.append(f"left out, since they judge one tree by itself: {', '.join(names)}")

    def compare(self, item: StandIn) -> None:
        """Pair processes of both sides until the verdict is clear; fail the item if it is red."""
        restarts: list[Restart] = []
        started_s = time.monotonic()
        try:
            found = self._judge(item, restarts)
        except SideError as error:
            found = (could_not_run(error.side, error.reason),)
        self.status.clear()
        if restarts:
            self._keep(item, restarts, found, time.monotonic() - started_s)
        self.judge(item.key, found, self._thresholds.warn)

    def _judge(self, item: StandIn, restarts: list[Restart]) -> tuple[Verdict, ...]:
        offer = self._stage.offers["before"]
        if item.key not in offer.items:
            why = offer.errors.get(item.key.partition("::")[0])
            raise SideError("before", why or "the benchmark was not collected there")
        show = partial(self.status.show, item.name)

        def observe(index: int) -> Restart:
            if index == len(restarts):
                restarts.append(self._restart(item.key, index))
            return restarts[index]

        started_s = time.monotonic()
        first = observe(0)
        if not is_counted(first):
            sample(
                observe,
                clear=lambda so_far: all(
                    verdict.outcome is not Outcome.INCONCLUSIVE
                    for verdict in verdicts(so_far, self._thresholds)
                ),
                budget_s=self._config.getoption("perf_budget") - (time.monotonic() - started_s),
                progress=show,
            )
        return verdicts(restarts, self._thresholds)

    def _restart(self, key: str, index: int) -> Restart:
        """Run one benchmark in a fresh process of each side; only one of them works at a time."""
        sides = {"A": self._stage.before, "B": self._stage.after}
        order = starting_order(index)
        duets: dict[str, Duet] = {}
        with ExitStack() as stack:
            workers = {
                letter: stack.enter_context(
                    sides[letter].start(key, partial(self.status.show, f"{sides[letter].name}:"))
                )
                for letter in order
            }
            while True:
                begun_s = time.monotonic()
                said = {letter: workers[letter].go() for letter in order}
                if {each["kind"] for each in said.values()} == {"done"}:
                    break
                names = {letter: each.get("what", "nothing") for letter, each in said.items()}
                if names["A"] != names["B"]:
                    raise SideError(
                        "before", f"it times {names['A']} where the code after times {names['B']}"
                    )
                name = "step_s" if not duets else f"step_s {len(duets) + 1}"
                duets[name] = _turns(workers, index, time.monotonic() - begun_s)
        if self._stage.ref is not None:
            why = misplaced(said["A"]["loaded"], said["B"]["loaded"])
            if why is not None:
                pytest.fail(
                    f"FAIL against: not two trees: {why}; install the project in editable mode,"
                    " or put it on pytest's pythonpath",
                    pytrace=False,
                )
        return Restart(
            started=order, duets=duets, before=said["A"]["record"], after=said["B"]["record"]
        )

    def _keep(
        self, item: StandIn, restarts: list[Restart], found: Iterable[Verdict], took_s: float
    ) -> None:
        """Put both sides' raw figures into pytest-benchmark's own record."""
        times_s = [
            block.step_s
            for each in restarts
            for duet in each.duets.values()
            for one in duet.quads
            for block in one.of("B")
        ]
        timer = Replay()
        fixture = BenchmarkFixture(
            item,
            add_stats=self._own.benchmarks.append,
            logger=self._own.logger,
            warner=item.warn,
            disabled=False,
            **{**self._own.options, "timer": NameWrapper(timer)},
        )
        record = {
            **restarts[0].after,
            "verdicts": [asdict(verdict) for verdict in found],
            "against": {"restarts": [_raw(each) for each in restarts]},
        }
        hand_over(fixture, timer, times_s or [took_s / len(restarts)], record)

    def header(self) -> list[str]:
        """Return what is compared."""
        now = self._stage.offers["after"]
        hardware = f"{now.hardware['count']} x {now.hardware['name']} ({now.hardware['key']})"
        return [f"{hardware}, torch {now.software['torch']}", *self._stage.header()]

    def section(self) -> dict[str, Any]:
        """Return hardware and software, and what was held against what."""
        then, now = self._stage.offers["before"], self._stage.offers["after"]
        ref = self._stage.ref
        return {
            "hardware": now.hardware,
            "software": now.software,
            "against": {
                "ref": None if ref is None else ref.name,
                "commit": None if ref is None else ref.commit,
                "software": then.software,
                "loaded": {"before": then.loaded, "after": now.loaded},
            },
        }


def _turns(workers: Mapping[str, Worker], index: int, start_s: float) -> Duet:
    """Let two workers take turns for about as long as it took to get there."""
    first, second = (workers[letter].block for letter in "AB")
    block = first()
    quad_s = 4 * block.steps * block.wall_s
    quads = min(max(round(start_s / quad_s), _MIN_QUADS), _MAX_QUADS)
    return take_turns(first, second, index=index, quads=quads)


def _raw(restart: Restart) -> dict[str, Any]:
    return {
        "started": restart.started,
        "turns": {
            name: {"order": duet.order, "blocks": [_known(asdict(b)) for b in duet.blocks]}
            for name, duet in restart.duets.items()
        },
        "before": {part: restart.before[part] for part in ("metrics", "raw")},
        "after": {part: restart.after[part] for part in ("metrics", "raw")},
    }


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    """Return what is not None: most of a machine's state is unknown, thousands of times."""
    return {
        name: _known(value) if isinstance(value, dict) else value
        for name, value in figures.items()
        if value is not None
    }
