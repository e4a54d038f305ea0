"""Progress of long work, on an interactive terminal only."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_EVERY_S = 0.2
_SAVE, _RESTORE, _ERASE = "\0337", "\0338", "\033[K"


class StatusLine:
    """A few words behind whatever pytest wrote on the current line, erased when done."""

    def __init__(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._interactive = False
        if reporter is not None:
            self._writer = config.get_terminal_writer()
            self._interactive = bool(reporter.isatty and self._writer.hasmarkup)
        self._shown_at_s = -_EVERY_S
        self._shown = False

    def show(self, what: str, done: int, of: int) -> None:
        """Show that `done` of `of` parts of `what` are done."""
        now_s = time.monotonic()
        if not self._interactive or (done < of and now_s - self._shown_at_s < _EVERY_S):
            return
        self._shown_at_s, self._shown = now_s, True
        self._draw(f"{what} {done}/{of}")

    def clear(self) -> None:
        """Erase what is shown."""
        if self._shown:
            self._shown = False
            self._draw("")

    def _draw(self, text: str) -> None:
        room = self._writer.fullwidth - self._writer.width_of_current_line - 2
        # Past the writer, which counts what it writes to know where pytest's line stands.
        file = self._writer._file
        with self.uncaptured():
            file.write(f"{_SAVE} {_ERASE}{text[: max(0, room)]}{_RESTORE}")
            file.flush()

    @contextmanager
    def uncaptured(self) -> Iterator[None]:
        """Let what is written reach the terminal, also from within a test."""
        if self._interactive and self._capture is not None:
            with self._capture.global_and_fixture_disabled():
                yield
        else:
            yield
