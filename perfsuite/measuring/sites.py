"""Where in the source an operator began, and in which node of the autograd graph it runs.

What that needs of torch's private parts is in here; a site is "unknown" where one is gone.
"""

import linecache
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from types import CodeType, FrameType

OF_TORCH = str(Path(torch.__file__).parent)
_ENGINE = str(Path(torch.autograd.__file__).parent)
_BETWEEN = (
    __file__,
    str(Path(__file__).with_name("tracing.py")),
    str(Path(__file__).with_name("fake_ranks.py")),  # which hands an all-reduce on
    f"{OF_TORCH}/_compile.py",  # by which torch wraps what a mode sees
    f"{OF_TORCH}/_dynamo/eval_frame.py",
)
UNKNOWN = "unknown place"


def in_backward() -> bool:
    """Tell whether autograd's engine runs the code that asks."""
    return bool(torch._C._current_graph_task_id() != -1)


def current_node() -> Any:
    """Return the node whose backward runs, None where that is not known."""
    ask = getattr(torch._C, "_current_autograd_node", None)
    node = ask() if ask is not None else None
    return node if hasattr(node, "_sequence_nr") or hasattr(node, "variable") else None


def next_number() -> int | None:
    """Return the number of the next node of the autograd graph, None where that is not known."""
    ask = getattr(torch._C._autograd, "_get_sequence_nr", None)
    return int(ask()) if ask is not None else None


def line_of_source() -> str | None:
    """Return the innermost line that is not torch's; None where autograd's engine called."""
    frame = _caller()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_ENGINE) and in_backward():
            return None
        if not file.startswith(OF_TORCH) and not file.startswith("<"):
            text = linecache.getline(file, frame.f_lineno).strip()
            return f"{shortened(file)}:{frame.f_lineno}: {text}"
        frame = frame.f_back
    return None if in_backward() else UNKNOWN


def attention_calls() -> bool:
    """Tell whether it is torch's scaled_dot_product_attention that calls an operator."""
    frame = _caller()
    if frame is None:
        return False
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return "scaled_dot_product_attention(" in line


def _caller() -> "FrameType | None":
    """Return the frame that called the operator."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _lies_between(frame.f_code):
        frame = frame.f_back
    return frame


def _lies_between(code: "CodeType") -> bool:
    return code.co_filename in _BETWEEN or code.co_name == "__torch_dispatch__"


def shortened(file: str) -> str:
    """Return a file's path as an import would find it."""
    below = [len(entry) for entry in sys.path if entry and file.startswith(f"{entry}/")]
    return file[max(below) + 1 :] if below else Path(file).name
