"""Levers that cannot be tried are left out: they take too long, or too much memory, or raise."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from perfsuite.devices.device import Device
from perfsuite.judging.gains import NO_MEMORY, LeverTried


@contextmanager
def leaving_out(tried: LeverTried, device: Device, *why: type[Exception]) -> Iterator[None]:
    """Leave a lever out for which there is not enough memory, or that raises one of `why`."""
    try:
        yield
    except Exception as error:
        if any(map(device.ran_out, _with_causes(error))):  # whatever has been made of it
            tried.left_out = f"{NO_MEMORY}: {_said(error)}"
        elif isinstance(error, why):
            tried.left_out = _said(error)
        else:
            raise


def _said(error: BaseException) -> str:
    # Of what a compiler has wrapped, the first line would say only that it has.
    late = next((each for each in _with_causes(error) if isinstance(each, TimeoutError)), None)
    inner = late or getattr(error, "inner_exception", None)
    if inner is not None and inner is not error:
        return _said(inner)
    return str(error).partition("\n")[0] or type(error).__name__


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, where the system can interrupt it."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it was not ready after {seconds:.0f} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)  # such as that of a test's time limit
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
