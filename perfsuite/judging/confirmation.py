"""From a suspicion to a verdict: what the screen suspects, and what pairs of processes say of it.

Pure functions. The screen compares with stored figures, which other days make differ; pairs of
processes compare the code that was promoted with the working tree, now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from perfsuite.judging.counts import GATE
from perfsuite.judging.gates import JUDGEABLE, Outcome, Verdict

ENVIRONMENT = "ENVIRONMENT"
"""What a figure's change is called that is not the code's."""
SOFTWARE = "software: "
"""With which a line begins that names a package whose version changed."""


def compare_gate(name: str) -> str:
    """Return the gate of a metric that is compared with the baseline's."""
    return f"compare {name}"


def environment_gate(name: str) -> str:
    """Return the gate of a metric that became worse although its code did not."""
    return f"environment {name}"


def metric_of(verdict: Verdict) -> str:
    """Return the metric that a verdict of either gate is about."""
    return verdict.gate.partition(" ")[2]


def suspects(screened: Sequence[Verdict]) -> list[str]:
    """Return the figures that a screen does not find clearly green, by the names of metrics."""
    return [
        metric_of(verdict)
        for verdict in screened
        # What was not measured cannot be measured again.
        if verdict.outcome is not Outcome.PASS and verdict.threshold != JUDGEABLE
    ]


def red_by_code(settled: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that are red, but for those of which the code is not the reason."""
    return [
        verdict
        for verdict in settled
        if verdict.outcome is Outcome.FAIL and verdict.word != ENVIRONMENT
    ]


def searchable(red: Sequence[Verdict]) -> str:
    """Return the first figure of red verdicts that a bisection can search, empty if none."""
    figures = [metric_of(verdict) for verdict in red if verdict.threshold != JUDGEABLE]
    return next((name for name in figures if name not in ("", GATE)), "")  # counts have no figure


def settle(
    screened: Sequence[Verdict],
    confirmed: Mapping[str, Verdict],
    *,
    cost: str,
    today: Mapping[str, Verdict],
    environment: Literal["fail", "warn"],
    changes: Sequence[str],
    beside: Sequence[str] = (),
) -> list[Verdict]:
    """Return the verdicts that count: those of pairs of processes, where there are any.

    Args:
        screened: what the screen said.
        confirmed: what the pairs said, by the names of metrics.
        cost: of the confirmation, in words.
        today: what the screen says of the pairs' own figures, where those can be held against
            stored ones; it tells a slow machine from one process that happened to be slow.
        environment: what becomes of a figure that is worse although its code is not.
        changes: what else is known to differ from when the baseline was promoted, a line each.
        beside: what software the pairs' own two sides differ in, a line each, where the promoted
            code had its old environment: what is worse is so by both together, and where nothing
            is, that software is not the reason either.
    """
    settled = []
    for verdict in screened:
        name = metric_of(verdict)
        found = confirmed.get(name)
        if found is None:
            settled.append(verdict)
            continue
        # What disturbed the screen may be what keeps the pairs from telling.
        unclear = found.outcome is Outcome.INCONCLUSIVE and verdict.reason
        why = f" ({verdict.reason})" if unclear else ""
        reason = f"suspected at {verdict.figure}{why}; measured again, {cost}: {found.reason}"
        if found.outcome is Outcome.FAIL and beside:
            reason += f"; the code and its environment together ({'; '.join(beside)})"
        settled.append(replace(found, gate=verdict.gate, reason=reason))
        # All of the screen's interval is worse than the margin, and the code is not the reason.
        now = today.get(name, verdict)
        if {verdict.outcome, now.outcome} == {Outcome.FAIL} and found.outcome is Outcome.PASS:
            # What the two sides differ in made nothing slower.
            known = [each for each in changes if each.removeprefix(SOFTWARE) not in beside]
            settled.append(_environment(now, environment, known))
    return settled


def _environment(
    verdict: Verdict, environment: Literal["fail", "warn"], changes: Sequence[str]
) -> Verdict:
    known = "; ".join(changes) or "nothing that is recorded"
    return replace(
        verdict,
        gate=environment_gate(metric_of(verdict)),
        outcome=Outcome.FAIL if environment == "fail" else Outcome.NOT_GATED,
        reason=f"the promoted code measures the same today; what else differs: {known}",
        word=ENVIRONMENT,
    )


def unconfirmed(screened: Sequence[Verdict], names: Sequence[str], why_not: str) -> list[Verdict]:
    """Return verdicts of a screen that stand since those of `names` could not be confirmed."""
    return [
        replace(verdict, reason=f"{verdict.reason}{'; ' * bool(verdict.reason)}{why_not}")
        if metric_of(verdict) in names
        else verdict
        for verdict in screened
    ]
