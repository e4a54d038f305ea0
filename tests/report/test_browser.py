"""The report in a real browser: no word on its console, nothing that overflows, and readable."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from picture import BROWSERS, FLAGS, HEIGHT, WIDTH, find_browser
from playwright.sync_api import Browser, Page, sync_playwright
from reports import PUBLISHED, ROOT, published, report, written

from perfsuite.__main__ import main

BROWSER = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"needs one of {', '.join(BROWSERS)}"),
]
SIZES = {"phone": 390, "desktop": 1440}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with long names and every kind of chart."""
    folder = tmp_path_factory.mktemp("browser")
    documents = [published() for _ in range(8)]
    ours = documents[-1]["benchmarks"][0]["extra_info"]["perfsuite"]
    long = f"{ours['key']}{'_long' * 30}"
    documents[-1]["perfsuite"]["items"][long] = documents[-1]["perfsuite"]["items"].pop(ours["key"])
    ours["key"] = long
    ours["reasons"] = ["a_name_without_a_space" * 10]
    for pair in ours["raw"]["pairs"]:
        pair["candidate"]["scales"] = [65536.0, 32768.0]
    report(folder, *documents)
    return folder / "report" / "report.html"


@pytest.fixture
def page(browser: Browser, path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Open the page, and check that the console stays empty and nothing is fetched."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    page.close()


EVERYWHERE = pytest.mark.parametrize(
    "page",
    [(width, scheme) for width in SIZES.values() for scheme in ("light", "dark")],
    ids=[f"{name}-{scheme}" for name in SIZES for scheme in ("light", "dark")],
    indirect=True,
)


@EVERYWHERE
def test_nothing_overflows(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    width = page.evaluate("innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Nor does anything outside of what scrolls by itself.
    beyond = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll')"
        " && !each.closest('svg') && each.getBoundingClientRect().right > innerWidth + 1)"
        ".map(each => each.outerHTML.slice(0, 80))"
    )
    assert beyond == []


@EVERYWHERE
def test_every_picture_is_seen_and_named(page: Page) -> None:
    pictures = page.get_by_role("img")
    assert pictures.count() == page.locator("figure").count() > 10
    for picture in pictures.all():
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 50
        assert picture.get_attribute("aria-label")


@EVERYWHERE
def test_letters_can_be_read(page: Page) -> None:
    sizes_px = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(each => {"
        " const at = each.getScreenCTM();"
        " return parseFloat(getComputedStyle(each).fontSize) * Math.hypot(at.a, at.b); })"
    )
    assert min(sizes_px) >= 9


CONTRAST = """
() => {
  const light = colour => {
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(each => each / 255)
      .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('h1, p, td, th, figcaption, summary, a, svg text')]
    .map(each => {
      const style = getComputedStyle(each);
      const ink = light(each.closest('svg') ? style.fill : style.color);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    });
}
"""


@EVERYWHERE
def test_text_stands_out_from_the_paper(page: Page) -> None:
    assert min(page.evaluate(CONTRAST)) >= 4.5  # WCAG 2.2, level AA


@pytest.mark.parametrize("page", [(1440, "dark")], indirect=True)
def test_on_paper_it_is_light_and_of_few_pages(page: Page) -> None:
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    pages = page.pdf(format="A4").count(b"/Type /Page\n")
    assert 1 < pages <= 12


def test_a_page_without_a_past_is_whole_too(browser: Browser, tmp_path: Path) -> None:
    (run,) = written(tmp_path, published())
    assert main(["report", str(run), "-o", str(tmp_path / "out")]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "out" / "report.html").as_uri())
    assert (
        page.get_by_role("heading", level=1).text_content() == "Green: 10 benchmarks, none failed"
    )
    assert page.get_by_role("link", name="History").count() == 0
    for link in page.get_by_role("navigation").get_by_role("link").all():
        target = link.get_attribute("href")
        assert target is not None
        assert page.locator(target).count() == 1
    page.close()


def draw_picture(*arguments: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "tools" / "picture.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def size(picture: Path) -> tuple[int, int]:
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def test_the_picture_in_the_readme_can_be_drawn_again(tmp_path: Path) -> None:
    assert draw_picture(PUBLISHED, tmp_path / "report.png").returncode == 0
    assert size(tmp_path / "report.png") == size(ROOT / "docs" / "report.png") == (WIDTH, HEIGHT)


def test_of_a_file_that_is_no_run_there_is_no_picture(tmp_path: Path) -> None:
    done = draw_picture(ROOT / "README.md", tmp_path / "report.png")
    assert done.returncode == 1
    assert done.stderr.startswith("picture: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.png").exists()
