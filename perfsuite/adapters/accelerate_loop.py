"""A loop of Accelerate as a training: its Accelerator, loader, optimizer and scheduler."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import batched
from typing import Any
