"""How good are bisections on a real machine? Repositories of 64 commits with a real training step.

    python studies/live_bisect_study.py             # all of them, on a quiet machine
    python studies/live_bisect_study.py --only 2    # the next two

Each search is a session of `perfsuite bisect` over a repository that is made for it: a step
accumulates the gradients of so many microbatches, and a commit that changes it takes more. Goes on
where it was broken off; writes docs/studies/bisect-HARDWARE.md.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from recordings import write_whole

from perfsuite.devices.choice import choose_device

FOLDER = Path(__file__).parent.parent / "docs" / "studies"
COMMITS, MICROBATCHES, SEED = 64, 50, 20261130
PLANTED: tuple[tuple[float, ...], ...] = (
    *([(0.2,)] * 5),
    *([(0.1,)] * 5),
    *([()] * 3),
    *([(0.2, 0.1)] * 2),
)
CODE = """
import torch

MICROBATCHES = {microbatches}
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
data, wanted = torch.randn(32, 64), torch.randint(10, (32,))


def step():
    optimizer.zero_grad()
    for _ in range(MICROBATCHES):
        loss = torch.nn.functional.cross_entropy(model(data), wanted)
        (loss / MICROBATCHES).backward()
    optimizer.step()
    # {commit}
"""
BENCHMARK = """
import mynet


def test_step(perf):
    blocks = perf.time(perf.warm(perf.plain(mynet.step, label="fp32")), blocks=8)
    perf.metric("step_s", min(each.step_s for each in blocks), unit="s", better="lower")
"""
FILES = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["src"]\n',
    ".gitignore": "__pycache__/\n.benchmarks/\n",
    "benchmarks/thresholds.toml": "",
    "benchmarks/test_speed.py": BENCHMARK,
}


class LiveSearch(msgspec.Struct, frozen=True, kw_only=True):
    """One search: what was planted at which commits, and what was found of it."""

    planted: list[float]
    at: list[int]
    found: list[tuple[int, int, float, float, float]]  # first, last, ratio, and its interval
    worth: str
    comparisons: int
    rounds: int
    took_s: float
    load_1min: float


class LiveBisections(msgspec.Struct, kw_only=True):
    """All searches of one machine."""

    hardware: str
    count: int
    software: dict[str, Any]
    searches: list[LiveSearch]


def repository(
    folder: Path, changes: dict[int, float], draw: random.Random, *, commits: int = COMMITS
) -> None:
    """Make a repository whose step changes at some commits; of the others a third touches prose."""

    def write(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=study", "-c", "user.email=study@example.invalid")
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True)

    for name, text in FILES.items():
        write(name, text)
    git("init", "--quiet")
    microbatches = float(MICROBATCHES)
    for commit in range(commits + 1):
        microbatches *= 1 + changes.get(commit, 0.0)
        if commit and commit not in changes and draw.random() < 1 / 3:
            write("README.md", f"{commit}\n")
        else:
            code = CODE.format(microbatches=round(microbatches), commit=commit)
            write("src/mynet/__init__.py", code)
        git("add", "--all")
        git("commit", "--quiet", f"--message=commit {commit}")


def search(number: int, sizes: Sequence[float]) -> LiveSearch:
    """Make a repository, search it, and return what came of it."""
    draw = random.Random(SEED + number)
    at = sorted(draw.sample(range(1, COMMITS + 1), len(sizes)))
    load = os.getloadavg()[0]
    with TemporaryDirectory(prefix="bisected-") as home:
        folder = Path(home) / "project"
        folder.mkdir()
        repository(folder, dict(zip(at, sizes, strict=True)), draw)
        started_s = time.monotonic()
        command = [sys.executable, "-m", "perfsuite", "bisect", f"HEAD~{COMMITS}"]
        options = ["--perf-device=cpu", "--perf-data=synthetic", "--output=answer"]
        subprocess.run([*command, *options], cwd=folder, check=False)
        took_s = time.monotonic() - started_s
        told = msgspec.json.decode((folder / "answer" / "bisect.json").read_bytes())
    (finding,) = told["findings"]
    changes = [
        (
            finding["steps"][each["first"] - 1],
            finding["steps"][each["last"] - 1],
            *(round(each["ratio"][end], 4) for end in ("value", "low", "high")),
        )
        for each in finding["answer"]["changes"]
    ]
    return LiveSearch(
        planted=list(sizes),
        at=at,
        found=changes,
        worth=worth(changes, at, decided=finding["answer"]["decided"]),
        comparisons=finding["comparisons"],
        rounds=finding["rounds"],
        took_s=round(took_s, 1),
        load_1min=round(load, 1),
    )


def worth(found: Sequence[Sequence[float]], at: Sequence[int], *, decided: bool) -> str:
    """Return "right", "range", "open", "missed" or "wrong", as the study in simulation does."""
    if any(each[0] == each[1] and each[0] not in at for each in found):
        return "wrong"
    if len(found) != len(at):
        return "missed" if at else "wrong"
    if any(not each[0] <= commit <= each[1] for each, commit in zip(found, at, strict=True)):
        return "wrong"
    if any(each[0] != each[1] for each in found):
        return "range"
    return "right" if at or decided else "open"


def page(study: LiveBisections) -> str:
    """Return the study as Markdown."""
    done = study.searches
    lines = [
        "# Bisections on a real machine",
        "",
        f"{len(done)} of {len(PLANTED)} searches on {study.count} x {study.hardware}, torch"
        f" {study.software['torch']}: repositories of {COMMITS} commits, a third of which touch"
        " prose alone, with a training step that accumulates gradients. Words as in"
        " [the study in simulation](bisect.md). Written by `python studies/live_bisect_study.py`.",
        "",
        "| planted | at | found | | comparisons | rounds | minutes | load before |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for each in done:
        planted = ", ".join(f"{size:+.0%}" for size in each.planted) or "none"
        found = ", ".join(
            f"{first}{f' to {last}' * (first != last)}: {ratio:.3f} [{low:.3f}, {high:.3f}]"
            for first, last, ratio, low, high in each.found
        )
        lines.append(
            f"| {planted} | {', '.join(map(str, each.at))} | {found or 'no change'} | {each.worth}"
            f" | {each.comparisons} | {each.rounds} | {each.took_s / 60:.1f} | {each.load_1min:g} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Search what was not yet searched, and write the page; return an exit code."""
    parser = argparse.ArgumentParser(description="Bisections on this machine.")
    parser.add_argument("--only", type=int, default=len(PLANTED), metavar="SEARCHES")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args(argv)
    device = choose_device("cpu")
    hardware = device.hardware()
    path = given.folder / f"bisect-{hardware.key}.json"
    study = LiveBisections(
        hardware=hardware.name, count=hardware.count, software=device.software(), searches=[]
    )
    if path.exists():
        study = msgspec.json.decode(path.read_bytes(), type=LiveBisections)
    first = len(study.searches)
    for number, sizes in list(enumerate(PLANTED))[first : first + given.only]:
        study.searches.append(search(number, sizes))
        write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1))
    write_whole(path.with_suffix(".md"), page(study).encode())
    print(f"wrote {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
