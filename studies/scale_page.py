"""The page of scale: what was measured and counted, and what the harness takes by a model of it."""

import math
import sys
from pathlib import Path

import msgspec
import numpy as np
from recordings import write_whole

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from figures import replace  # found once it is on the path

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"
LAZY = "TORCH_GLOO_LAZY_INIT"
RING = "all_gather_object"
"""Torch's own, once around a ring for sizes and once for bytes."""
PER_BLOCK = {"meet": 1, "numbers": 2, "agreed": 2}
"""How often a block asks all ranks, and by which method of `Ranks`."""
MODELLED = (64, 512, 4096)
LATENCY_S = 50e-6
"""Assumed: a small message's way over TCP between two machines of one network."""


class RealRanks(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on so many processes of one machine."""

    ranks: int
    cpu_s: dict[str, float]  # of a call in one process, the median over processes
    sockets: int  # of a process and a group
    lazy_sockets: int  # where they are made when they are first used


class MadeUpRanks(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same on every machine, and seconds of one thread of this one."""

    ranks: int
    rounds: int  # of an exchange
    block_bytes: int  # that a rank sends in a block
    run_bytes: int
    whole_run_bytes: int  # if each rank's time of each block were in it
    kept_s: float  # to sum a block up
    rounds_to_judge: int  # the fewest after which a slow rank can be told
    judge_s: float  # to judge slow ranks, at one look
    judge_bytes: int  # that this takes at its peak, beside the blocks themselves
    alike_s: float  # to hold the machines of all ranks against each other, once a session
    memory_bytes: int  # that the times of one block take


class ScaleStudy(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    cpu: str
    cores: int
    torch: str
    real: list[RealRanks]
    made_up: list[MadeUpRanks]


def rounds_of(name: str, ranks: int) -> int:
    """Return how many messages a call waits for, one after the other.

    Barrier and broadcast of gloo are trees; a broadcast of objects is two, of a size and of bytes.
    """
    if name == RING:
        return 2 * (ranks - 1)
    return math.ceil(math.log2(ranks)) * {"meet": 1, "numbers": 1, "agreed": 2, "each": 2}[name]


def modelled_s(study: ScaleStudy, name: str, ranks: int) -> float:
    """Return what a call takes: CPU time on a line through what was measured, and the network."""
    rounds = [rounds_of(name, each.ranks) for each in study.real]
    slope, start = np.polyfit(rounds, [each.cpu_s[name] for each in study.real], 1)
    return float(start + (slope + LATENCY_S) * rounds_of(name, ranks))


def block_s(study: ScaleStudy, ranks: int) -> float:
    """Return what the harness adds to a block of so many ranks, by the model."""
    return sum(times * modelled_s(study, name, ranks) for name, times in PER_BLOCK.items())


def table(study: ScaleStudy) -> str:
    """Return the tables of the page."""
    names = (*PER_BLOCK, "each", RING)
    head = " | ".join(f"`{name}`" for name in names)
    lines = [
        f"CPU time of a call in one process, in ms, measured on {study.cores} x {study.cpu} with"
        f" torch {study.torch}; below the line the time of a call on machines of their own, in ms,"
        f" by the model. `{RING}` is torch's own, and not used.",
        "",
        f"| ranks | rounds | {head} | a block |",
        "| ---: " * (len(names) + 3) + "|",
    ]
    for each in study.real:
        block = sum(times * each.cpu_s[name] for name, times in PER_BLOCK.items())
        cells = " | ".join(f"{each.cpu_s[name] * 1e3:.2f}" for name in names)
        lines.append(
            f"| {each.ranks} | {rounds_of('meet', each.ranks)} | {cells} | {block * 1e3:.1f} |"
        )
    lines.append("| **modelled** |" + " |" * (len(names) + 2))
    for ranks in MODELLED:
        cells = " | ".join(f"{modelled_s(study, name, ranks) * 1e3:.2f}" for name in names)
        lines.append(
            f"| {ranks:,} | {rounds_of('meet', ranks)} | {cells} |"
            f" {block_s(study, ranks) * 1e3:.1f} |"
        )
    least_s = block_s(study, MODELLED[-1]) / 0.01
    lines += [
        "",
        f"A block asks all ranks {sum(PER_BLOCK.values())} times:"
        f" {', '.join(f'{times} x `{name}`' for name, times in PER_BLOCK.items())}. On"
        f" {MODELLED[-1]:,} ranks that is 1 % of a block of {least_s:.1f} s.",
        "",
        "| ranks | sent by a rank in a block | run file | with each rank's time of each block |"
        " a block summed up | a look at slow ranks | first look after | machines compared, once |"
        " memory of a block, of a look |",
        "| ---: " * 9 + "|",
    ]
    lines += [
        f"| {each.ranks:,} | {each.block_bytes:,} B | {each.run_bytes / 1e3:,.0f} kB |"
        f" {each.whole_run_bytes / 1e3:,.0f} kB | {each.kept_s * 1e3:.2f} ms |"
        f" {each.judge_s * 1e3:,.0f} ms | {each.rounds_to_judge} rounds |"
        f" {each.alike_s * 1e3:.1f} ms | {each.memory_bytes / 1e3:,.1f} kB,"
        f" {each.judge_bytes / 1e6:,.1f} MB |"
        for each in study.made_up
    ]
    last = study.real[-1]
    lines += [
        "",
        f"Of {last.ranks} processes each holds {last.sockets} sockets for a group of gloo, and"
        f" {last.lazy_sockets} with `{LAZY}=1`.",
    ]
    return "\n".join(lines)


def write_page(study: ScaleStudy) -> None:
    """Write the tables into the page."""
    content = f"{BEGIN}\n{table(study)}\n{END}"
    text = replace(PAGE.read_text(encoding="utf-8"), content, begin=BEGIN, end=END)
    write_whole(PAGE, text.encode())
