"""Advice in words, and as a table of thresholds.toml that keeps the comments around it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfsuite.judging.advice import Advice, Known, advise, wish, worse_by_twice
from perfsuite.judging.thresholds import ThresholdsError, load_thresholds
from perfsuite.records.evidence import Evidence
from perfsuite.records.files import write_part
from perfsuite.records.wording import counted

Table = Mapping[str, Mapping[str, float]]
"""Keys of thresholds.toml, by table."""


def tell_advice(evidence: Evidence, *, budget_s: float, margin: float | None) -> list[str]:
    """Return what is known of each figure and what follows; of `margin`, what it would take."""
    asked = evidence.thresholds.compare
    wished = asked.margin if margin is None else margin
    runs = f"{counted(evidence.promoted, 'promoted run')}, {counted(evidence.nights, 'night')}"
    lines = [f"{evidence.hardware}: {runs}; {budget_s:g} s to confirm what is suspected"]
    for known in evidence.figures:
        advice = advise(known, budget_s=budget_s, confidence=asked.confidence)
        lines += [known.name, *(f"  {line}" for line in _figure(known, advice))]
        lines.append(f"  {_wish(known, wished, asked.confidence)}")
    if 0 < evidence.promoted < 3:
        lines.append("fewer than 3 runs are promoted: the screen assumes a spread; promote more")
    return lines + ["never evaluated:", *(f"  {each}" for each in evidence.never)] * bool(
        evidence.never
    )


def _figure(known: Known, advice: Advice) -> list[str]:
    spreads = [
        f"{spread:.1%} {where}"
        for spread, where in (
            (known.within, "within a process"),
            (known.between.deviation if known.runs > 1 else None, "between processes"),
            (known.nights, "between nights"),
        )
        if spread is not None
    ]
    shown = "known" if known.pairs is not None else "supposed, since no two took turns yet"
    cost = ", for how long is not known"
    if known.pair_s is not None:
        cost = f", {'perhaps ' * known.guessed}{known.pair_s:.1f} s each"
    once = f"{advice.suspected:.0%}" if advice.suspected >= 0.01 else "less than 1%"
    return [
        f"scatter: {', '.join(spreads) or 'not known'}",
        f"pairs of processes: scatter by {advice.scatter:.1%} at most ({shown}){cost};"
        f" {advice.pairs} of them hold a margin of {advice.held:.1%}",
        f"margin {advice.margin:.1%}: an unchanged night is red once in 1,000 or less, one that is"
        f" {worse_by_twice(advice.margin):.1%} worse is found in 99 of 100 or more;"
        f" {once} of unchanged nights are measured again",
    ]


def _wish(known: Known, margin: float, confidence: float) -> str:
    takes = wish(known, margin=margin, confidence=confidence)
    pairs = "more pairs of processes than are ever taken"
    if takes.pairs is not None:
        seconds = "" if takes.seconds is None else f" ({takes.seconds:.0f} s)"
        pairs = f"{takes.pairs} pairs{seconds}"
    runs = "no number of promoted runs keeps nine unchanged nights of ten from being measured again"
    if takes.runs is not None:
        runs = f"{counted(takes.runs, 'promoted run')}"
    return f"margin {margin:.1%} would take {pairs}, and {runs}"


def advised_table(evidence: Evidence, *, budget_s: float) -> Table:
    """Return the margins that every figure holds; none where no figure scatters."""
    if not evidence.figures:
        return {}
    confidence = evidence.thresholds.compare.confidence
    found = [advise(known, budget_s=budget_s, confidence=confidence) for known in evidence.figures]
    assumed = max(known.screened.deviation for known in evidence.figures)
    return {
        "compare": {
            "margin": max(advice.margin for advice in found),
            "assumed_spread": round(assumed + 0.0005, 3),
        },
        "against": {"margin": max(advice.held for advice in found)},
    }


def as_toml(hardware: str, table: Table) -> list[str]:
    """Return a table as lines of thresholds.toml."""
    lines: list[str] = []
    for name, keys in table.items():
        lines += [f'[hardware."{hardware}".{name}]', *(f"{k} = {v:g}" for k, v in keys.items()), ""]
    return lines[:-1]


def write_table(path: Path, hardware: str, table: Table) -> None:
    """Put a table into a thresholds.toml, whose other keys and comments stay as they are.

    Raises:
        ThresholdsError: the file cannot be read or added to, or a later table of it overlays what
            would be written.
    """
    load_thresholds(path, hardware)  # so that whatever is wrong is said as it always is
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    expected = tomllib.loads(text)
    ours = expected.setdefault("hardware", {}).setdefault(hardware, {})
    for name, keys in table.items():
        ours.setdefault(name, {}).update(keys)
    added = _added(text, hardware, table)
    if added is None or tomllib.loads(added) != expected:
        raise ThresholdsError(f"{path}: cannot be added to as it is written: do so by hand")
    part = write_part(path, added.encode())
    try:
        found = load_thresholds(part, hardware)
        for name, keys in table.items():
            for key, value in keys.items():
                if getattr(getattr(found, name), key) != value:
                    raise ThresholdsError(
                        f'{path}: a table after [hardware."{hardware}"] overlays {name}.{key}:'
                        " move that of this hardware to the end"
                    )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _added(text: str, hardware: str, table: Table) -> str | None:
    """Return a TOML document with a table added; None where tomlkit cannot."""
    import tomlkit  # late: nothing else writes TOML
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        ours = _within(_within(document, "hardware", head=False), hardware, head=False)
        for name, keys in table.items():
            _within(ours, name).update(keys)
        added = tomlkit.dumps(document)
        tomllib.loads(added)
    except (TOMLKitError, ValueError, TypeError):
        return None
    return added


def _within(table: Any, name: str, *, head: bool = True) -> Any:
    """Return a table in another of tomlkit's, made where it is missing.

    One that holds tables alone needs no `head`.
    """
    import tomlkit
    from tomlkit.items import InlineTable, KeyType, SingleKey

    if name not in table:
        inline = isinstance(table, InlineTable)
        new = tomlkit.inline_table() if inline else tomlkit.table(is_super_table=not head)
        table[SingleKey(name, KeyType.Bare if name.isidentifier() else KeyType.Basic)] = new
    return table[name]
