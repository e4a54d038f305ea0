"""How times that we measured get into pytest-benchmark's own statistics."""

from collections.abc import Iterator, Sequence

__all__ = ["Replay"]


class Replay:
    """A timer whose differences are the times that it was given."""

    __name__ = "perfsuite"

    def __init__(self) -> None:
        self._readings: Iterator[float] = iter(())

    def load(self, times_s: Sequence[float]) -> None:
        """Give it the times; it is then read twice for each."""
        self._readings = iter([reading for time_s in times_s for reading in (0.0, time_s)])

    def __call__(self) -> float:
        """Return the next reading."""
        return next(self._readings)
