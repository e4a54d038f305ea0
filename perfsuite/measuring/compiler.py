"""What torch.compile did: graphs, where they broke off, what was compiled anew, and why.

Public of torch is that a backend is handed each graph, and ``set_stance``. All that is private is
in here, as it is from torch 2.11 to 2.15; where it is gone, what it told is unknown.
"""

import linecache
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from perfsuite.measuring.sites import OF_TORCH, UNKNOWN, shortened

_MOST_COMPILATIONS = 10_000
"""That torch keeps for us to read; by itself it forgets all but the last 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilations:
    """What was compiled in a part of a run.

    Attributes:
        graphs: handed to the backend.
        frames: a line for each frame that was compiled: where, and by which guard, if anew.
        breaks: a line for each place at which a graph broke off, and why.
        given_up: a line for each frame that runs uncompiled from now on, and why.
    """

    graphs: int = 0
    frames: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()


@dataclass(eq=False)
class CompilerWatch:
    """Tells what was compiled since it was last asked."""

    _graphs: int = 0
    _fixed: dict[str, str] = field(default_factory=dict)  # where a size became a constant

    def backend(self, module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        """Run a graph as it was traced: what is compiled does not depend on what compiles it."""
        self._graphs += 1
        if (fixed := _fixed_size()) is not None:
            self._fixed[_compile_id()] = fixed
        return module.forward

    def told(self) -> Compilations:
        """Return what was compiled, and forget it."""
        graphs, self._graphs = self._graphs, 0
        utils = _private("_dynamo.utils")
        breaks = getattr(utils, "graph_break_reasons", [])
        broken = [f"{_place(each.user_stack)} ({_line(each.reason)})" for each in breaks]
        breaks.clear()
        ask = getattr(utils, "get_compilation_metrics", None)
        if ask is None or not hasattr(utils, "clear_compilation_metrics"):
            return Compilations(graphs=graphs, frames=(UNKNOWN,) * graphs, breaks=tuple(broken))
        every = [each for each in ask() if getattr(each, "is_forward", None) is not False]
        utils.clear_compilation_metrics()
        return Compilations(
            graphs=graphs,
            frames=tuple(self._frame(each) for each in every if not each.fail_type),
            breaks=tuple(dict.fromkeys(broken)),
            given_up=tuple(
                f"{_place_of_guard(each) or UNKNOWN} ({_line(each.fail_reason)})"
                for each in every
                if each.fail_type
            ),
        )

    def _frame(self, compilation: Any) -> str:
        where = _place_of_guard(compilation)
        reason = getattr(compilation, "recompile_reason", None)
        if where is None:
            where = self._fixed.pop(str(compilation.compile_id), None) or _source(
                compilation.co_filename, compilation.co_firstlineno
            )
        return f"{where} (guard: {_guard(reason)})" if reason else where


@contextmanager
def watched_compiler() -> Iterator[CompilerWatch]:
    """Watch what is compiled within, from nothing; a graph runs as it was traced."""
    watch = CompilerWatch()
    torch.compiler.reset()
    utils, config = _private("_dynamo.utils"), _private("compiler.config")
    limit = getattr(utils, "set_compilation_metrics_limit", lambda _: None)
    linecache.checkcache()
    try:
        limit(_MOST_COMPILATIONS)
        watch.told()
        # What an earlier process saw of changing sizes is nothing to this one.
        with (
            config.patch(job_id=None),
            torch.compiler.set_stance("default", force_backend=watch.backend),
            without_torchs_warnings(),
        ):
            yield watch
    finally:
        limit(getattr(utils, "DEFAULT_COMPILATION_METRICS_LIMIT", 64))
        torch.compiler.reset()


@contextmanager
def without_torchs_warnings() -> Iterator[None]:
    """Leave out warnings of what torch does to trace, also where a project makes errors of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor", UserWarning)
        yield


@dataclass(slots=True)
class CompilerTold:
    """What torch told of what was compiled; None of what it did not tell."""

    compile_s: float | None = None
    hits: int | None = None  # graphs that were found in a cache on the disk
    misses: int | None = None


@contextmanager
def told_by_torch() -> Iterator[CompilerTold]:
    """Have torch tell of what is compiled within, as it is meant to be compiled."""
    found, utils = CompilerTold(), _private("_dynamo.utils")
    counted = getattr(utils, "counters", None)
    ask, forget = (getattr(utils, f"{verb}_compilation_metrics", None) for verb in ("get", "clear"))
    if forget is not None:
        forget()
    if counted is not None:
        counted.clear()
    yield found
    if ask is not None:
        every = [getattr(each, "duration_us", None) for each in ask()]
        found.compile_s = sum(each for each in every if each is not None) / 1e6
    if counted is not None:
        of_graphs = counted["inductor"]
        found.hits, found.misses = (of_graphs[f"fxgraph_cache_{each}"] for each in ("hit", "miss"))


@contextmanager
def drawing_as_written() -> Iterator[None]:
    """Let what is compiled draw the random numbers that it draws where it is not."""
    config = _private("_inductor.config")
    if not hasattr(config, "fallback_random"):
        yield
        return
    with config.patch(fallback_random=True):
        yield


def lacks_compiler(error: BaseException) -> bool:
    """Tell whether something could not be compiled since the machine has no C++ compiler."""
    wanted = getattr(_private("_inductor.exc"), "InvalidCxxCompiler", ())
    while not isinstance(error, wanted):
        inner = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
        if inner is None:
            return False
        error = inner
    return True


def compiler_loaded() -> bool:
    """Tell whether anything can have been compiled: torch.compile loads what compiles."""
    return "torch._dynamo" in sys.modules


def _private(name: str) -> Any:
    try:
        return import_module(f"torch.{name}")
    except ImportError:
        return None


def _compile_id() -> str:
    context = getattr(_private("_guards"), "CompileContext", None)
    ask = getattr(context, "current_compile_id", None)
    return str(ask()) if ask is not None else ""


def _fixed_size() -> str | None:
    """Return where the graph that is handed over made a constant of a size that had changed."""
    context: Any = getattr(_private("_guards"), "TracingContext", None)
    found = context.try_get() if hasattr(context, "try_get") else None
    sizes = getattr(getattr(found, "fake_mode", None), "shape_env", None)
    stacks = list(getattr(sizes, "specialization_stacks", {}).values())
    return _place(stacks[0]) if stacks else None


def _place(frames: Iterable[Any]) -> str:
    """Return the innermost line of a stack that is not torch's."""
    for frame in reversed(list(frames)):
        if not frame.filename.startswith(OF_TORCH):
            return _source(frame.filename, frame.lineno)
    return UNKNOWN


def _place_of_guard(compilation: Any) -> str | None:
    """Return the line that a guard is of, if it is of one."""
    _, _, stack = (getattr(compilation, "recompile_reason", None) or "").partition("User stack")
    for file, line in reversed(re.findall(r'File "(.+)", line (\d+)', stack)):
        if not file.startswith(OF_TORCH):
            return _source(file, int(line))
    return None


def _source(file: str, line: int) -> str:
    return f"{shortened(file)}:{line}: {linecache.getline(file, line).strip()}"


def _guard(reason: str) -> str:
    """Return the guard that failed, without what differs from one process to the next."""
    guard = re.sub(r"^\d+/\d+: ", "", _line(reason)).partition("  # ")[0].strip()
    return re.sub(r"\d{9,}", "...", guard)  # addresses


def _line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip()
