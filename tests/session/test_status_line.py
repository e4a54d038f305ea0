"""The status line: drawn on an interactive terminal only, and erased again."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from _pytest._io import TerminalWriter
from suites import HEAD, Suite

import perfsuite.session.terminal
from perfsuite.session.terminal import StatusLine

SAVE, RESTORE, ERASE = "\0337", "\0338", "\033[K"


class Ticking:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    monkeypatch.setattr(perfsuite.session.terminal, "time", clock)
    return clock


class Screen:
    """A terminal that pytest has written `line` to, and a status line on it."""

    def __init__(
        self, *, isatty: bool = True, markup: bool = True, width: int = 60, line: str = "test_a.py "
    ) -> None:
        self.file = io.StringIO()
        self.writer = TerminalWriter(self.file)
        self.writer.hasmarkup, self.writer.fullwidth = markup, width
        self.writer.write(line)
        self.file.truncate(0)
        self.file.seek(0)
        self.uncaptured = ""
        plugins = {
            "terminalreporter": SimpleNamespace(isatty=isatty),
            "capturemanager": SimpleNamespace(global_and_fixture_disabled=self._disabled),
        }
        config = SimpleNamespace(
            pluginmanager=SimpleNamespace(get_plugin=plugins.get),
            get_terminal_writer=lambda: self.writer,
        )
        self.status = StatusLine(cast("pytest.Config", config))

    @contextmanager
    def _disabled(self) -> Iterator[None]:
        before = len(self.file.getvalue())
        yield
        self.uncaptured += self.file.getvalue()[before:]

    @property
    def drawn(self) -> list[str]:
        """What was drawn, piece by piece."""
        head = f"{SAVE} {ERASE}"
        pieces = self.file.getvalue().split(RESTORE)
        assert pieces.pop() == ""
        assert all(piece.startswith(head) for piece in pieces)
        return [piece.removeprefix(head) for piece in pieces]


@pytest.mark.parametrize(
    ("isatty", "markup"),
    [(False, False), (False, True), (True, False)],
    ids=["pipe", "colour-to-a-pipe", "no-colour"],
)
def test_nothing_is_drawn_without_an_interactive_terminal(
    clock: Ticking, isatty: bool, markup: bool
) -> None:
    screen = Screen(isatty=isatty, markup=markup)
    screen.status.show("timing fp32", 1, 2)
    screen.status.show("timing fp32", 2, 2)
    screen.status.clear()
    assert screen.file.getvalue() == ""


def test_progress_is_drawn_and_erased(clock: Ticking) -> None:
    screen = Screen()
    screen.status.show("timing fp32", 1, 20)
    screen.status.clear()
    screen.status.clear()
    assert screen.drawn == ["timing fp32 1/20", ""]
    # What is drawn from within a test is captured otherwise, and shown if the test fails.
    assert screen.uncaptured == screen.file.getvalue()
    # pytest goes on where it was: its writer must not have counted what was drawn.
    assert screen.writer.width_of_current_line == len("test_a.py ")


def test_progress_is_drawn_five_times_a_second_and_at_the_end(clock: Ticking) -> None:
    screen = Screen()
    for done in range(1, 101):
        screen.status.show("timing fp32", done, 100)
        clock.now_s += 0.01
    assert screen.drawn == [f"timing fp32 {done}/100" for done in (1, 21, 41, 61, 81, 100)]


def test_what_takes_long_tells_how_long_the_rest_will_take(clock: Ticking) -> None:
    screen = Screen(width=200)
    for done, after_s in ((2, 0.0), (3, 60.0), (5, 140.0), (9, 20.0), (10, 1.0)):
        clock.now_s += after_s
        screen.status.show("epochs", done, 10)
    # What was done before, by a session that was broken off, took none of this one's time.
    left = ["", ", 7 min left", ", 6 min left", ", 31 s left", ""]
    assert screen.drawn == [
        f"epochs {done}/10{told}" for done, told in zip((2, 3, 5, 9, 10), left, strict=True)
    ]


def test_time_that_is_left_is_told_of_what_is_shown_and_not_of_what_was(clock: Ticking) -> None:
    screen = Screen(width=200)
    for what in ("one", "other"):
        for done in (1, 2):
            clock.now_s += 10.0
            screen.status.show(what, done, 3 if what == "one" else 100)
    assert screen.drawn[1:] == ["one 2/3, 10 s left", "other 1/100", "other 2/100, 16 min left"]


@pytest.mark.parametrize("width", [5, 12, 20, 80])
def test_progress_is_cut_at_the_end_of_the_line(clock: Ticking, width: int) -> None:
    """Else the terminal scrolls, and the cursor comes back to the wrong place."""
    screen = Screen(width=width)
    screen.status.show("timing fp32 and fp16 in turns", 1, 20)
    (text,) = screen.drawn
    assert len(text) <= max(0, width - len("test_a.py ") - 1)
    assert "timing fp32 and fp16 in turns 1/20".startswith(text)


INTERACTIVE = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reporter.isatty = type(reporter.isatty)(True)
"""


@pytest.mark.parametrize("capture", ["no", "sys", "fd"])
@pytest.mark.parametrize("interactive", [False, True], ids=["pipe", "terminal"])
def test_a_session_shows_the_progress_of_a_benchmark(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, interactive: bool, capture: str
) -> None:
    suite = Suite(pytester, monkeypatch)
    suite.write("conftest.py", INTERACTIVE if interactive else "")
    suite.write(
        "test_steps.py",
        f"{HEAD}\ndef test_a(perf):\n    perf.progress('timing')(1, 1)\n    measure(perf)\n",
    )
    result = suite.run("--color=yes", f"--capture={capture}")
    assert result.ret == 0
    text = result.stdout.str()
    assert (SAVE in text, "timing 1/1" in text) == (interactive, interactive)
    if interactive:
        line = text.partition("timing 1/1")[2].partition("\n")[0]
        assert f"{SAVE} {ERASE}{RESTORE}" in line
