"""The pages become a site without a warning, and what it shows comes from nowhere else."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from os import environ
from pathlib import Path

import pytest
from documents import DOCS, ROOT

import perfsuite

pytestmark = pytest.mark.slow
SETTINGS = environ | {"NO_MKDOCS_2_WARNING": "1"}


def build(target: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", target, *arguments],
        cwd=ROOT,
        env=SETTINGS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stdout
    return target


class Loads(HTMLParser):
    """Collects what a page makes a browser fetch; a link that a reader follows is none."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "src" or (name == "href" and tag == "link")):
                self.found.append(value)


def test_every_page_is_there_and_the_sources_that_they_link_to(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    pages |= {Path("contributing.html"), Path("changelog.html")}
    pages |= {Path("source/perfsuite/judging/gates.py.html")}
    assert sorted(str(page) for page in pages if not (site / page).exists()) == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loaded = {each for page in site.rglob("*.html") for each in Loads(page).found}
    assert loaded
    assert [each for each in loaded if re.match(r"(\w+:)?//", each) and "data:" not in each] == []


def test_diagrams_are_drawn_with_every_message(site: Path) -> None:
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert "mermaid" not in page  # what draws it would be fetched
    source = (DOCS / "architecture.md").read_text(encoding="utf-8")
    messages = re.findall(r"^ +\w+-->?>?\w+: (.+)$", source, re.MULTILINE)
    messages += re.findall(r"^ +\w+->>\w+: (.+)$", source, re.MULTILINE)
    assert len(messages) > 20
    assert [each for each in messages if f">{each}</text>" not in page] == []


def test_nothing_tells_where_it_was_built(site: Path) -> None:
    text = [path for path in site.rglob("*") if path.suffix in (".html", ".json", ".xml")]
    assert [path.name for path in text if str(ROOT) in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("name", perfsuite.__all__)
def test_the_reference_documents_every_public_name(site: Path, name: str) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    _, found, after = page.partition(f'id="perfsuite.{name}"')
    assert found
    assert "<p>" in after.partition("<h3")[0]


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[lost](../perfsuite/nothing.py)\n", encoding="utf-8")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        (tmp_path / name).write_text("# Empty\n", encoding="utf-8")
    config = tmp_path / "mkdocs.yml"
    hook = ROOT / "tools" / "site_pages.py"
    config.write_text(f"site_name: a site\ntheme: material\nhooks: [{hook}]\n", encoding="utf-8")
    done = build(tmp_path / "site", "--config-file", str(config))
    assert done.returncode == 1
    assert "../perfsuite/nothing.py" in done.stdout
