"""The chain of baselines: a small file beside the promoted runs, an entry for each promotion.

It stays when `promote --replace` removes the runs of an older commit, and is TOML with a figure a
line, so that the diff of a pull request shows what a promotion accepts.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Annotated, Literal

import msgspec

from perfsuite.judging.creep import AcceptedFigure, judge_creep
from perfsuite.judging.gates import Verdict
from perfsuite.judging.spreads import Spread, or_assumed
from perfsuite.judging.thresholds import Thresholds
from perfsuite.records.baseline import Baseline, BaselineError
from perfsuite.records.git import HASH, GitError, git, resolve, why_shallow
from perfsuite.records.schema import Benchmark, Run

CHAIN_FILE = "chain.toml"
_HEAD = """\
# The baselines of this hardware, the oldest first, also those whose runs were replaced.
# Written by `perfsuite promote`; the gate `creep` holds what all of their changes add up to.
"""


class PromotedFigure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure of a promotion: the geometric mean over its runs."""

    benchmark: str
    figure: str
    value: Annotated[float, msgspec.Meta(gt=0)]
    unit: str
    better: Literal["lower", "higher"]
    config: str  # a digest of what was measured

    def __post_init__(self) -> None:
        """Refuse infinity, which TOML has."""
        if not math.isfinite(self.value):
            raise ValueError("value must be finite")


class Promotion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became the baseline at one time."""

    commit: str
    date: str  # on which its newest run was started
    runs: Annotated[int, msgspec.Meta(ge=1)]
    torch: str
    figures: list[PromotedFigure]


class _ChainFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    promotion: list[Promotion] = []


def read_chain(folder: Path) -> list[Promotion]:
    """Return the promotions of a baseline's folder, the oldest first; none without a file.

    Raises:
        BaselineError: the file cannot be read.
    """
    path = folder / CHAIN_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(document, _ChainFile).promotion
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, or not what is written here
        why = " ".join(str(error).split())
        raise BaselineError(
            f"{path}: cannot be read: {why}; restore the file, or remove it to start a new chain"
        ) from None


def with_runs(
    chain: Sequence[Promotion], runs: Sequence[Run], *, anew: bool = False
) -> list[Promotion]:
    """Return a chain that ends with all promoted runs of a commit.

    Their entry may be there, of the same commit and so far of fewer runs, unless they are `anew`.
    """
    last = _promotion(runs)
    known = bool(chain) and chain[-1].commit == last.commit and not anew
    return [*(chain[:-1] if known else chain), last]


def _promotion(runs: Sequence[Run]) -> Promotion:
    newest = max(runs, key=lambda run: (run.started, run.path))
    values: dict[tuple[str, str], list[float]] = {}
    figures: dict[tuple[str, str], PromotedFigure] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.path)):
        for key, benchmark in run.benchmarks.items():
            for name, metric in benchmark.metrics.items():
                values.setdefault((key, name), []).append(metric.value)
                figures[key, name] = PromotedFigure(
                    benchmark=key,
                    figure=name,
                    value=geometric_mean(values[key, name]),
                    unit=metric.unit,
                    better=metric.better,
                    config=_digest(benchmark),
                )
    return Promotion(
        commit=newest.commit,
        date=newest.started[:10],
        runs=len(runs),
        torch=str(newest.software.get("torch", "unknown")),
        figures=[figures[each] for each in sorted(figures)],
    )


def _digest(benchmark: Benchmark) -> str:
    content = msgspec.json.encode(benchmark.config, order="sorted")
    return hashlib.sha256(content).hexdigest()[:12]


def encode_chain(chain: Sequence[Promotion]) -> bytes:
    """Return the file of a chain."""
    lines = [_HEAD]
    for each in chain:
        lines += ["[[promotion]]", f"commit = {_text(each.commit)}", f"date = {_text(each.date)}"]
        lines += [f"runs = {each.runs}", f"torch = {_text(each.torch)}", "figures = ["]
        for figure in each.figures:
            pairs = msgspec.structs.asdict(figure).items()
            lines.append(f"  {{ {', '.join(f'{k} = {_text(value)}' for k, value in pairs)} }},")
        lines += ["]", ""]
    return "\n".join(lines).encode()


def _text(value: str | float) -> str:
    """Return a value as TOML, whose strings are JSON's but for one character."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{value:.12g}"


def accepted_since(baseline: Baseline, since: str | None) -> list[Promotion]:
    """Return the chain as far as a baseline, from that of the tag or commit `since` on.

    Raises:
        BaselineError: the chain cannot be read, or it is not known which of it came before `since`.
    """
    folder = baseline.folder
    chain = with_runs(read_chain(folder), baseline.runs)
    if since is None:
        return chain
    if HASH.fullmatch(since):
        named = [at for at, each in enumerate(chain) if each.commit.startswith(since)]
        if named:
            return chain[named[-1] :]
    try:
        start = resolve(since, folder).commit
    except GitError as error:
        raise BaselineError(f"[creep] since: {error}") from None
    before = [at for at, each in enumerate(chain) if _leads_to(each.commit, start, folder)]
    if before:
        return chain[before[-1] :]
    if _leads_to(start, chain[0].commit, folder):
        return chain  # which all came later
    why = why_shallow(folder) or (
        "none of the promoted commits leads to it, as after a squashed merge; name one of"
        f" {CHAIN_FILE}, such as {chain[-1].commit[:12]}"
    )
    raise BaselineError(f"[creep] since = {since!r}: {why}")


def _leads_to(earlier: str, later: str, folder: Path) -> bool:
    """Tell whether a commit is in the history of another, or the same; not if it is unknown."""
    try:
        git(folder, "merge-base", "--is-ancestor", earlier, later)
    except GitError:
        return False
    return True


def creep(
    chain: Sequence[Promotion], baseline: Baseline, key: str, asked: Thresholds
) -> list[Verdict]:
    """Judge what accepted changes of a benchmark add up to, figure by figure."""
    found = []
    current = {each.figure: each for each in chain[-1].figures if each.benchmark == key}
    for name, now in current.items():
        accepted = [
            AcceptedFigure(
                when=f"{promotion.date} {promotion.commit[:12]}",
                value=each.value,
                runs=promotion.runs,
                measured=f"{each.unit} {each.better} {each.config}",
                software=f"torch {promotion.torch}",
            )
            for promotion in chain
            for each in promotion.figures
            if (each.benchmark, each.figure) == (key, name)
        ]
        spread = Spread(0.0, math.inf)  # bytes are counted
        if now.unit != "B":
            learnt = baseline.promoted_spreads.get((key, name), Spread(0.0, 0.0))
            spread = or_assumed(learnt, asked.compare.assumed_spread)
        verdict = judge_creep(
            f"creep {name}",
            accepted,
            margin=asked.creep.margin,
            better=now.better,
            spread=spread,
            confidence=asked.compare.confidence,
        )
        found += [] if verdict is None else [verdict]
    return found
