"""Draw the picture of a report: ``python tools/picture.py RUN.json PICTURE.png``.

The report is written to a temporary folder and looked at in a browser, as a reader would.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

from perfsuite.records.schema import RunError
from perfsuite.report.render import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1180, 1700
# Pages of our own are all that it opens, and a container has no sandbox to offer.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


def find_browser() -> str | None:
    """Return the browser that the machine has, None without one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def picture(run: Path, target: Path, browser: str) -> None:
    """Write what the upper part of a run's report looks like, as PNG.

    Raises:
        RunError: the run cannot be read.
        OSError: something could not be written.
        Error: the browser failed.
    """
    with tempfile.TemporaryDirectory(prefix="picture-") as folder, sync_playwright() as playwright:
        page_path, _ = write_report(run, [], Path(folder))
        chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_path.as_uri())
        page.screenshot(path=target)
        chromium.close()


def main(arguments: list[str]) -> int:
    """Write the picture; return 0, or 1 after one line that says what was wrong."""
    if len(arguments) != 2:
        print("usage: python tools/picture.py RUN.json PICTURE.png", file=sys.stderr)
        return 2
    browser = find_browser()
    try:
        if browser is None:
            raise RunError(f"no browser to look with: install one of {', '.join(BROWSERS)}")
        picture(Path(arguments[0]), Path(arguments[1]), browser)
    except (OSError, RunError, Error) as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
