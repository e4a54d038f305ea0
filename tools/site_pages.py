"""Hooks of mkdocs.yml: the files outside of docs/ that pages link to become pages of the site.

So a link that leads somewhere in the repository leads somewhere on the site, too. And diagrams are
drawn while it is built: the theme would have the browser fetch what draws them.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sequence import draw

ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")  # they are in the site's menu
_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()([^)#\s]+)([^)\s]*\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/ that the pages link to."""
    root = Path(config.docs_dir).parent
    pages = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    pages += [(name, (root / name).read_text(encoding="utf-8")) for name in ALWAYS]
    linked = {
        target
        for name, text in pages
        for _, link, _ in _LINK.findall(text)
        if "://" not in link and not (target := _target(name, link)).startswith("docs/")
    }
    for name in sorted(linked.union(ALWAYS)):
        if (root / name).is_file():  # of any other the link is left, and told as a broken one
            text = (root / name).read_text(encoding="utf-8")
            content = text if name.endswith(".md") else _source(name, text)
            files.append(File.generated(config, _on_site(name), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs gives it
    """Draw diagrams, and let links to files outside of docs/ lead to their pages."""
    here = page.file.src_uri
    origin = {_on_site(name): name for name in ALWAYS}.get(here, f"docs/{here}")

    def led(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        target = _on_site(_target(origin, link))
        if "://" in link or files.get_file_from_path(target) is None:
            return found[0]
        return before + posixpath.relpath(target, posixpath.dirname(here) or ".") + after

    if here.startswith("source/"):
        return markdown
    return _LINK.sub(led, _DIAGRAM.sub(lambda found: draw(found[1]), markdown))


def _target(name: str, link: str) -> str:
    """Return where a link of a file leads, as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _on_site(name: str) -> str:
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    # MkDocs leaves out what begins with a dot, such as .github.
    return name.lower() if name.endswith(".md") else f"source/{name.lstrip('.')}.md"


def _source(name: str, text: str) -> str:
    """Return a page that shows a file, and that the search leaves out."""
    language = Path(name).suffix.removeprefix(".")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{language}\n{text}````\n"
