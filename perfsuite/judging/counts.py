"""Counts of a step, which are exact: what changed between two ledgers, and where. Pure functions.

A count has a name such as ``forward: cast float32 -> bfloat16``. It does not depend on how anything
in the source is called, nor on where it stands, so that moving or renaming code changes nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perfsuite.judging.gates import Outcome, Verdict

GATE, WORD = "ledger", "CHANGED"
PEAK = "bytes alive at the peak"
PEAK_TOLERANCE = 0.01
"""Of the peak, which depends on how long a variable of some name is alive, too."""
PLACES = 3
"""At so many places is a change told to have happened."""

# Totals of what other counts tell one by one: a step that casts more allocates more.
_TOTALS = re.compile(r"bytes |FLOPs |parameters|launches")
_HINTS = (
    (
        r"cast float32 -> (bfloat16|float16)",
        1,
        "are weights cast anew, autocast's cache being off?",
    ),
    (r"cast (bfloat16|float16) -> float32", 1, "does something leave autocast's region?"),
    (r"host reads", 1, "the host waits for the device at each, as for .item() or print(loss)"),
    (r"copy \w+ -> \w+", 1, "is something made on another device, and moved in each step?"),
    (r"layout to ", 1, "do the memory formats of two neighbours differ?"),
    (r"FLOPs float32", 1, "has a product escaped autocast?"),
    (r"optimizer steps", -1, "is a step skipped, or taken for another?"),
    (r"compiler: graph breaks", 1, "move what cannot be traced out of what is compiled"),
    (r"compiler: compilations", 1, "keep what a guard names the same, or make a tensor of it"),
    (
        r"^(?!bytes).*all_gather",
        1,
        "is something gathered again that had been freed, or need not be whole?",
    ),
    (
        r"^(?!bytes).*(reduce_scatter|(backward|between): all_reduce)",
        -1,
        "are gradients not averaged any more?",
    ),
    (
        r"^(?!bytes).*all_reduce",
        1,
        "is a value of all ranks wanted in each step, as of a metric?",
    ),
    (r"random numbers", -1, "is a dropout gone, or in evaluation mode?"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a step was counted to do.

    Attributes:
        about: what was counted, such as the workload and the shapes of its batch.
        counts: by name.
        sites: where each count comes from: a module, and a line of source; not judged.
        unsteady: names of counts that differed between two steps, and are not judged.
    """

    about: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    sites: dict[str, dict[str, int]] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChange:
    """A count that is another one than before."""

    name: str
    before: int
    after: int
    places: tuple[str, ...] = ()  # where it became more, or was more before

    @property
    def grew(self) -> int:
        """By how much it became more."""
        return self.after - self.before

    @property
    def where(self) -> str:
        """Where, in words that follow what changed."""
        if not self.places:
            return ""
        were, lines = "" if self.grew > 0 else "was ", _by_line(self.places)
        more = len(lines) - PLACES
        return f": {were}{'; '.join(lines[:PLACES])}" + (f"; and {more} more" if more > 0 else "")

    @property
    def hint(self) -> str:
        """What is likely to be the cause, in words that follow all else."""
        for pattern, sign, hint in _HINTS:
            if self.grew * sign > 0 and re.search(pattern, self.name):
                return f" ({hint})"
        return ""

    def __str__(self) -> str:
        counts = f"{self.grew:+,} {self.name} ({self.before:,} -> {self.after:,})"
        return f"{counts}{self.where}{self.hint}"


def changes(before: Ledger, after: Ledger) -> list[CountChange]:
    """Return what differs: what the code does first, and the totals that follow from it last."""
    skipped = {*before.unsteady, *after.unsteady}
    found = [
        CountChange(
            name=name,
            before=then,
            after=now,
            places=tuple(
                _places(before.sites.get(name, {}), after.sites.get(name, {}), now - then)
            ),
        )
        for name in sorted({*before.counts, *after.counts} - skipped)
        if (then := before.counts.get(name, 0)) != (now := after.counts.get(name, 0))
        and not (name == PEAK and abs(now - then) <= PEAK_TOLERANCE * then)
    ]
    return sorted(found, key=lambda each: (_rank(each.name), each.name))


def told(found: Sequence[CountChange]) -> list[str]:
    """Return changes, a line each; an operator that changed its dtype is one."""
    lines, by_operator = [], defaultdict(list)
    for change in found:
        phase, _, did = change.name.partition(": ")
        by_operator[phase, did.partition(" ")[0]].append(change)
    for (phase, operator), group in by_operator.items():
        less, more = (
            [each for each in group if (each.after > each.before) == up] for up in (False, True)
        )
        if len(less) == len(more) == 1 and more[0].grew == -less[0].grew:
            was, now = (each.name.partition(f"{operator} ")[2] for each in (less[0], more[0]))
            what = f"{more[0].grew} {phase}: {operator} {now}, and no more {was}"
            lines.append(f"{what}{more[0].where}{more[0].hint}")
        else:
            lines += map(str, group)
    return lines


def judge(before: Ledger, after: Ledger, *, as_in: str) -> tuple[Verdict, list[str]]:
    """Judge counts that must be as they were; return what changed too, a line each.

    Better is red too, until it is accepted: or else the next loss would hide behind it.
    """
    lines = [
        f"{name} is {after.about.get(name, 'missing')!r}, and was {then!r}"
        for name, then in before.about.items()
        if after.about.get(name) != then
    ]
    if not lines:  # counts of something else say nothing
        was, now = set(before.unsteady), set(after.unsteady)
        new = [
            f"{name} differs from one step to the next, and did not before" for name in now - was
        ]
        old = [f"{name} differed from one step to the next, and does no more" for name in was - now]
        lines = sorted([*new, *old])
        lines += told(changes(before, after))
    judged = len({*before.counts, *after.counts})
    figure = f"{len(lines)} differ" if lines else f"all {judged} counts are the same"
    verdict = Verdict(
        gate=GATE,
        outcome=Outcome.FAIL if lines else Outcome.PASS,
        figure=figure,
        threshold=as_in,
        reason=f"not judged, since they are unsteady: {', '.join(after.unsteady)}"
        * bool(after.unsteady),
        word=WORD * bool(lines),
    )
    return verdict, lines


def _places(before: Mapping[str, int], after: Mapping[str, int], difference: int) -> list[str]:
    """Return where a count became more, or was more, the most first; lines may have moved."""
    sides = [Counter[str](), Counter[str]()]
    shown: dict[str, str] = {}
    for side, sites in zip(sides, (before, after), strict=True):
        for site, number in sites.items():
            known = without_line(site)
            side[known] += number
            shown[known] = site
    moved = sides[1] - sides[0] if difference > 0 else sides[0] - sides[1]
    return [shown[known] for known, _ in moved.most_common()]


def _by_line(places: Iterable[str]) -> list[str]:
    """Return each line of source once, with the modules in which it is one of the places."""
    modules: dict[str, list[str]] = {}
    for place in places:
        found = re.fullmatch(r"(?:([^:]+), )?([^,:]+:\d+: .*)", place)
        module, line = found.groups() if found else (None, place)
        modules.setdefault(line, []).extend([] if module is None else [module])
    return [line + (f" (in {_listed(names)})" if names else "") for line, names in modules.items()]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - PLACES
    return ", ".join(names[:PLACES]) + (f" and {more} more" if more > 0 else "")


def without_line(site: str) -> str:
    """Return a site without the number of its line, which moves whenever a line is added above."""
    return re.sub(r"(\.\w+):\d+", r"\1", site)


def _rank(name: str) -> int:
    """Return where a count stands in a list: what the others follow from first."""
    phases = ("forward: ", "between: ", "optimizer: ", "backward: ")
    return next(
        (rank for rank, phase in enumerate(phases) if name.startswith(phase)),
        len(phases) + bool(_TOTALS.match(name)),
    )


def merged(ledgers: Sequence[Ledger]) -> Ledger:
    """Return the ledger of several steps: what differs between them is unsteady."""
    first = ledgers[0]
    names = {name for each in ledgers for name in each.counts}
    unsteady = {name for name in names if len({each.counts.get(name, 0) for each in ledgers}) > 1}
    return Ledger(
        about=first.about,
        counts={name: n for name, n in first.counts.items() if name not in unsteady},
        sites={name: sites for name, sites in first.sites.items() if name not in unsteady},
        unsteady=sorted(unsteady),
    )
