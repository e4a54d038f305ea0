"""The search of a row for one benchmark: counts first, which are exact, then a noisy figure."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from perfsuite.bisecting.count_reader import SPENT, CountReader, steps_that_touch, version_at
from perfsuite.bisecting.loss_kinds import search_kinds
from perfsuite.bisecting.rounds import BisectionError, Round, Rounds
from perfsuite.judging.change_posterior import CommitCompared
from perfsuite.judging.change_search import FIRST_ROUNDS, ChangeSearch, SearchAnswer
from perfsuite.judging.count_search import counted_changes
from perfsuite.judging.counts import Ledger, changes, told
from perfsuite.judging.estimates import Estimate, SampleError
from perfsuite.judging.interleaving import pooled_ratio
from perfsuite.judging.thresholds import Thresholds
from perfsuite.records.wording import short_name

_SUSPECTED = 50.0
"""How many times likelier a step is to change a figure where it changes what is counted."""
_COUNTING = 0.5
"""Of the budget, what counting may take where there is a figure to be measured after it."""


@dataclass(kw_only=True)
class Finding:
    """What a search found of a benchmark.

    Attributes:
        figure: that was searched, empty where only counts were.
        steps: of the row, that may change what the benchmark runs; others are left out.
        counted: where counts change, as (first, last) of the row's steps, and what changes.
        kinds: where the figure becomes another kind of number, if it does, in the same way.
        answer: on the figure; its commits are places in `steps`, from 1.
        ends: the figure of the bad end over that of the good one.
        levels: of the figure over the good end's, by step of the row, with intervals.
        notes: what else there is to say, a line each.
        open: why there is no answer; empty if there is one.
    """

    key: str
    figure: str = ""
    steps: Sequence[int] = ()
    counted: list[tuple[int, int, list[str]]] = field(default_factory=list)
    kinds: list[tuple[int, int, str]] = field(default_factory=list)
    answer: SearchAnswer | None = None
    ends: Estimate | None = None
    levels: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    comparisons: int = 0
    rounds: int = 0
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    open: str = ""


@dataclass(kw_only=True)
class Searcher:
    """Searches a row for benchmarks, one after the other, until a deadline."""

    rounds: Rounds
    thresholds: Thresholds
    figure: str | None  # None for the first that differs between the ends
    budget_s: float
    show: Callable[[str, int, int], None]

    def search(self, finding: Finding) -> None:
        """Search for what changed a finding's benchmark; raises BisectionError.

        What was found by then is in it, whatever ends the search.
        """
        started_s = time.monotonic()
        key = finding.key
        finding.steps = [*range(1, len(self.rounds.row.steps) + 1)]
        self.show(f"counting {short_name(key)}", 0, 1)
        own = self.rounds.count(key, len(self.rounds.row.steps))
        counting = key if own.ledger is not None else self._counting(key)
        counts_alone = own.ledger is not None and not own.measures
        if counts_alone and self.figure is not None:
            raise BisectionError(f"{short_name(key)} only counts: it has no figure {self.figure}")
        if counting is not None:
            share = 1.0 if counts_alone else _COUNTING
            try:
                self._count(counting, finding, started_s + share * self.budget_s)
            except BisectionError as error:
                if counts_alone:
                    raise
                finding.notes.append(f"counts tell nothing: {error}")
        if not counts_alone:
            try:
                kinds = search_kinds(self.rounds, key, self.figure, started_s + self.budget_s)
                finding.notes += kinds.notes
                if kinds.figure:
                    finding.figure, finding.steps = kinds.figure, kinds.steps
                    finding.kinds = kinds.changes
                else:
                    self._measure(key, finding, started_s + self.budget_s)
            except BisectionError as error:
                if not finding.counted:
                    raise
                finding.open = str(error)
        self.rounds.end_between()
        finding.took_s = time.monotonic() - started_s

    def _counting(self, key: str) -> str | None:
        """Return the benchmark that counts what this one runs, if it is known which does.

        That is one with the same parameters: of the same file, or else the only one in the suite.
        """
        asked = _parts(key)
        items = self.rounds.collected[len(self.rounds.row.steps)].items
        ledgers = [each for each in items if "ledger" in _parts(each)[1] and each != key]
        alike = [each for each in ledgers if _parts(each)[2] == asked[2]]
        beside = [each for each in alike if _parts(each)[0] == asked[0]]
        found = beside or alike
        return found[0] if len(found) == 1 else None

    def _count(self, key: str, finding: Finding, deadline_s: float) -> None:
        """Find where counts change; what there was no time to count is within a range."""
        reader = CountReader(
            rounds=self.rounds,
            key=key,
            deadline_s=deadline_s,
            notes=finding.notes,
            show=self.show,
        )
        row = self.rounds.row
        ends: list[Ledger] = []
        for end in (0, len(row.steps)):
            count = reader.count(end)
            if count.ledger is None:
                why = count.why or f"{short_name(key)} keeps no ledger"
                raise BisectionError(f"the {self.rounds.told(end)} counts nothing: {why}")
            ends.append(count.ledger)

        def read(place: int) -> Ledger | None:
            count = reader.at(finding.steps, place)
            return None if count is None else count.ledger

        finding.steps = ()
        for finding.steps in reader.rows():
            finding.counted = []
            for first, last in counted_changes(read, len(finding.steps)):
                before, after = read(first - 1), read(last)
                assert before is not None
                assert after is not None
                lines = told(changes(before, after))
                finding.counted.append((finding.steps[first - 1], finding.steps[last - 1], lines))
        if not finding.steps and changes(*ends):
            raise BisectionError(
                f"counts differ, but no {row.noun} between touches what is imported"
            )
        if reader.late:
            finding.notes.append(f"not all is counted: {SPENT}")

    def _measure(self, key: str, finding: Finding, deadline_s: float) -> None:
        n = len(self.rounds.row.steps)
        between = self._ends(key, n, deadline_s)
        finding.figure = name = self._chosen(key, between, finding)
        imported = set(between[0].files)
        finding.steps = steps = steps_that_touch(self.rounds.row, imported)
        margin = self._margin(name)
        finding.ends = _ratio([each.over_good[name] for each in between])
        if not steps:
            finding.open = f"no {self.rounds.row.noun} between touches what the benchmark imports"
            return
        suspected = {s for first, last, _ in finding.counted for s in range(first, last + 1)}

        def prior() -> list[float]:
            return [_SUSPECTED if step in suspected else 1.0 for step in steps]

        search = ChangeSearch(prior(), margin=margin)
        ends = tuple(each.over_good[name] for each in between)
        search.tell(CommitCompared(commit=len(steps), over_good=ends))
        finding.rounds = len(ends)
        while (place := search.next()) is not None:
            if time.monotonic() > deadline_s:
                finding.notes.append(SPENT)
                break
            version = version_at(self.rounds.row, steps, place)
            taken, files = self._compare(key, name, search, place, version, deadline_s=deadline_s)
            if isinstance(taken, str):
                search.skip(place)
                finding.notes.append(f"skipped {self.rounds.told(version)}: {taken}")
            else:
                search.tell(taken)
                finding.rounds += len(taken.over_good)
            if imported:  # in between there may be more, as under `_count`
                imported.update(files)
            if len(more := steps_that_touch(self.rounds.row, imported)) > len(steps):
                places = [*(more.index(step) + 1 for step in steps[:-1]), len(more)]
                finding.steps = steps = more
                search = search.among(prior(), places)
        finding.answer = search.answer()
        finding.comparisons = len(search.compared)
        finding.levels[0] = (1.0, 1.0, 1.0)
        for place, level in search.levels().items():
            version = version_at(self.rounds.row, steps, place)
            finding.levels[version] = (level.value, level.low, level.high)
            finding.ends = level  # at last that of the bad end, known by now from all comparisons
        if not finding.answer.changes and not finding.answer.decided:
            finding.open = "too noisy to say; give it more --budget"

    def _ends(self, key: str, n: int, deadline_s: float) -> list[Round]:
        """Compare both ends, from which the noise is learnt: fewer rounds would not tell it.

        However late it is, one is taken, so that whoever runs it again comes further.
        """
        found = [self.rounds.round(key, n)]
        while len(found) < FIRST_ROUNDS:
            if time.monotonic() > deadline_s:
                raise BisectionError(f"both ends are not compared yet: {SPENT}")
            self.show("both ends", len(found), FIRST_ROUNDS)
            found.append(self.rounds.round(key, n))
        return found

    def _compare(
        self,
        key: str,
        name: str,
        search: ChangeSearch,
        place: int,
        version: int,
        *,
        deadline_s: float,
    ) -> tuple[CommitCompared | str, Collection[str]]:
        """Compare a version with both ends until its level is known, or say why it cannot be.

        Also returns the files that it imported.
        """
        over_good: tuple[float, ...] = ()
        bad_over: tuple[float, ...] = ()
        while True:
            self.show(self.rounds.told(version)[:40], len(over_good), len(over_good) + 1)
            found = self.rounds.round(key, version)
            whole = name in found.over_good and (place == search.n or name in found.bad_over)
            if found.why or not whole:
                return found.why or f"it has no {name}", found.files
            over_good += (found.over_good[name],)
            bad_over += (found.bad_over[name],) if place != search.n else ()
            taken = CommitCompared(commit=place, over_good=over_good, bad_over=bad_over)
            if not search.unclear(taken) or time.monotonic() > deadline_s:
                return taken, found.files

    def _chosen(self, key: str, between: Sequence[Round], finding: Finding) -> str:
        """Return the figure to be searched: the one asked for, or the first that differs."""
        names = [name for name in between[0].over_good if all(name in r.over_good for r in between)]
        if not names:
            why = "".join(f"; {note}" for note in finding.notes)
            raise BisectionError(f"{short_name(key)}: nothing was measured on both ends{why}")
        if self.figure not in (None, *names):
            known = ", ".join(names)
            raise BisectionError(f"{short_name(key)} has no figure {self.figure}, but {known}")
        differ = []
        for name in names:
            ratio = _ratio([each.over_good[name] for each in between])
            margin = self._margin(name)
            if ratio.low > 1 + margin or ratio.high < 1 / (1 + margin):
                differ.append(name)
        chosen = self.figure or (differ or names)[0]
        if others := [name for name in differ if name != chosen]:
            verb = "differ" if others[1:] else "differs"
            finding.notes.append(f"{', '.join(others)} {verb}, too: --figure")
        return chosen

    def _margin(self, figure: str) -> float:
        of_loss = figure.endswith("mean_loss")
        return self.thresholds.convergence.margin if of_loss else self.thresholds.against.margin


def _parts(key: str) -> tuple[str, str, str]:
    """Return a benchmark's file, its name, and its parameters."""
    file, _, rest = key.partition("::")
    head, _, parameters = rest.partition("[")
    return file, head.rpartition("::")[2], parameters


def _ratio(ratios: Sequence[float]) -> Estimate:
    try:
        return pooled_ratio(ratios, confidence=0.99)
    except SampleError as error:
        return Estimate.no_answer(str(error))
