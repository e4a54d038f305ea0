"""README.md is short, names what there is, and leads to the pages, whose links lead on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, PAGES, ROOT, name_of, text_of

README = text_of(ROOT / "README.md")
BY_CI = {"make bench", "make test"}


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_two_commands_are_what_ci_runs() -> None:
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert set(steps) >= BY_CI
    assert set(re.findall(r"^\$ (make \S+)", README, re.MULTILINE)) == BY_CI


def test_every_recipe_that_is_named_is_one() -> None:
    recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    texts = "".join(map(text_of, PAGES))
    named = set(re.findall(r"`make\s([a-z-]+)|^\$ make ([a-z-]+)", texts, re.MULTILINE))
    assert {one or other for one, other in named} <= recipes
    assert len(named) > 5


def test_every_option_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"],
        cwd=tmp_path,  # without the conftest.py of these tests, which imports torch
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"--perf-[a-z-]+", done.stdout))
    assert options == set(re.findall(r"`(--perf-[a-z-]+)", README))
    told = {
        each for page in PAGES for each in re.findall(r"(?<![\w-])--perf-[a-z-]+", text_of(page))
    }
    assert told <= options


def anchors(page: Path) -> set[str]:
    """Return what GitHub and MkDocs make of headings, which differs for odd characters alone."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text_of(page))
    lost = []
    for path, anchor in links:
        target = page.parent / path if path else page
        if "://" not in path and not target.exists():
            lost.append(path)
        elif anchor and "://" not in path and anchor not in anchors(target):
            lost.append(f"{path}#{anchor}")
    assert lost == []


def test_readme_leads_to_the_pages() -> None:
    index = text_of(DOCS / "index.md")
    linked = set(re.findall(r"\]\((docs/[\w/-]+\.md)", README))
    linked |= {f"docs/{each}" for each in re.findall(r"\]\(([\w/-]+\.md)", index)}
    ours = {name_of(page) for page in DOCS.glob("*.md")} - {"docs/index.md"}
    assert ours <= linked
