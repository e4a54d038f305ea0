"""Digits: real, on the device, in an order that a seed decides, and plain about failures."""

from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from perfsuite.training.data import (
    SOURCES,
    DataError,
    Digits,
    load_digits,
    mnist_folder,
    mnist_loader,
)

CPU = torch.device("cpu")


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


def test_ranks_share_one_order_and_each_takes_its_own_batches_of_it() -> None:
    whole = [labels.tolist() for _, labels in numbered(50).epochs(7, 4)]
    shares = [numbered(50).epochs(7, 4, rank=rank, ranks=3) for rank in range(3)]
    found = [[labels.tolist() for _, labels in share] for share in shares]
    assert [len(share) for share in shares] == [len(each) for each in found] == [2, 2, 2]
    assert found == [whole[rank:6:3] for rank in range(3)]
    with pytest.raises(ValueError, match="a batch of 17 for each of 3 ranks from 50 images"):
        numbered(50).epochs(17, 0, ranks=3)


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
    with pytest.raises(DataError, match=repr(source)) as caught:
        load_digits(source, CPU)
    message = str(caught.value)
    assert "\n" not in message
    assert all(known in message for known in SOURCES)


@pytest.mark.parametrize("source", ["synthetic", "cifar10"])
def test_the_real_loader_has_real_digits_alone(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--perf-data mnist5k"):
        mnist_folder(source, tmp_path)
