"""Fresh processes of one interpreter, each with a warm arm, that time a block when asked."""

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from perfsuite.devices.cpu import HostClock
from perfsuite.devices.device import Clock
from perfsuite.judging.blocks import Block, resting_collector
from perfsuite.judging.interleaving import Duet, starting_order, take_turns
from perfsuite.measuring.timing import Timeable, time_block, warm_up

MakeStudied = Callable[[int], Timeable]
"""Builds what is timed, from a seed; defined in a module, so that a process can be sent it."""
MakeClock = Callable[[], Clock]
"""Builds what measures it, likewise."""

# Forked from a server that has imported what is needed and touched neither a GPU nor a
# parallel region, a process is ready in a twentieth of a second instead of ten.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "perfsuite.training.workload", "torch._dynamo"])


_GRACE_S = 5.0
_PATIENCE_S = 300.0
"""A process that does not answer for so long hangs; no warm-up takes a tenth of it."""


class ArmProcessError(RuntimeError):
    """The process of an arm ended, or could not do what it was asked."""


class ArmProcess:
    """A fresh process with a warm arm, which times a block whenever it is asked.

    It works with one thread: two teams of threads on the same cores spin against each other.

    Args:
        make_arm: builds the arm, in the process.
        seed: handed to it.
        steps: training steps in a block.
        make_clock: builds what measures it, in the process too.
        warm: warm it up first.
    """

    def __init__(
        self,
        make_arm: MakeStudied,
        *,
        seed: int,
        steps: int,
        make_clock: MakeClock = HostClock,
        warm: bool = True,
    ) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(theirs, make_arm, make_clock, seed, steps, warm), daemon=True
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None  # it was started
        return self._process.pid

    def ready(self) -> None:
        """Return once the arm is warm.

        Raises:
            ArmProcessError: it did not get there.
        """
        self._receive()

    def block(self) -> Block:
        """Return the timing of the next block.

        Raises:
            ArmProcessError: the process could not take it.
        """
        with suppress(OSError):  # one that has gone is told by what it does not answer
            self._pipe.send("block")
        block = self._receive()
        assert isinstance(block, Block)
        return block

    def close(self) -> None:
        """End the process, asking first."""
        with suppress(OSError):  # it may have gone already
            self._pipe.send("quit")
        self._process.join(timeout=_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _receive(self) -> Any:
        try:
            if not self._pipe.poll(_PATIENCE_S):
                raise ArmProcessError(f"the arm's process gave no answer for {_PATIENCE_S:g} s")
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise ArmProcessError(
                f"the arm's process ended with {self._process.exitcode}"
            ) from None
        if isinstance(answer, str):
            raise ArmProcessError(answer)
        return answer


def _work(  # noqa: PLR0917  # what a process is sent
    pipe: Connection,
    make_arm: MakeStudied,
    make_clock: MakeClock,
    seed: int,
    steps: int,
    warm: bool,  # by position, as a process is sent it
) -> None:
    """Warm up, say so, then time a block for each request until told to quit."""
    # Ctrl-C reaches all processes of a terminal; whoever started this one will end it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        arm, clock = make_arm(seed), make_clock()
        if warm:
            warm_up(arm, clock, steps=steps)
        pipe.send(None)
        with resting_collector():
            while pipe.recv() == "block":
                pipe.send(time_block(arm, clock, steps))
    except (EOFError, BrokenPipeError):
        pass  # whoever asked has gone
    except Exception as error:  # a user's step may raise anything; it is told where it is asked
        pipe.send(f"{type(error).__name__}: {error}")


def restart(
    before: MakeStudied,
    after: MakeStudied,
    *,
    index: int,
    quads: int,
    steps: int,
    make_clock: MakeClock = HostClock,
) -> Duet:
    """Start a pair of processes and let them take turns; return their duet, A for `before`.

    Raises:
        ArmProcessError: one of them ended, or raised.
    """
    makers = {"A": before, "B": after}
    with ExitStack() as stack:
        processes = {
            letter: stack.enter_context(
                ArmProcess(makers[letter], seed=index, steps=steps, make_clock=make_clock)
            )
            for letter in starting_order(index)
        }
        for process in processes.values():
            process.ready()
        first, second = processes["A"].block, processes["B"].block
        return take_turns(first, second, index=index, quads=lambda _: quads)
