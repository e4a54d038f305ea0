"""A whole training, broken off and gone on with, loses exactly what an unbroken one does."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeTime
from projects import git_in
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from perfsuite.devices.cpu import Cpu
from perfsuite.devices.precision import Precision
from perfsuite.measuring.epochs import EpochsOf, train_epochs
from perfsuite.training.arm import Arm
from perfsuite.training.batches import TrainingError
from perfsuite.training.data import Digits
from perfsuite.training.step import TrainStep
from perfsuite.training.tutorial import right_of, tutorial_workload
from perfsuite.training.workload import Training, Workload

CPU = torch.device("cpu")
STEPS, EPOCHS = 3, 4
BOTH = (Precision.fp32, Precision.fp16)  # the one without a scaler, the other with one


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> None:
    """Make the folder a repository: what is of unknown code is never gone on with."""
    git_in(tmp_path, "init", "--quiet")
    git_in(tmp_path, "commit", "--quiet", "--allow-empty", "--message=begun")


def digits() -> Digits:
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(6 * STEPS + 5, 1, 28, 28, generator=noise)
    return Digits(source="noise", images=images, labels=torch.arange(len(images)) % 10)


def dropping(precision: Precision, device: torch.device, seed: int) -> Training:
    """Return a small training whose losses depend on its batches' order, and on dropout."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Dropout(), nn.Linear(16, 10))
    step = TrainStep(model, torch.optim.Adam(model.parameters()), precision=precision)
    data = digits()
    return Training(
        step=step,
        batches=data.epochs(6, seed),
        state=[model, step.optimizer, step.scaler],
        right=partial(right_of, step, data),
    )


def fresh(precision: Precision, seed: int = 0) -> Arm:
    return Workload(name="dropping", make=dropping).arm(precision, CPU, seed)


def trainings(folder: Path | None, **about: object) -> list[EpochsOf]:
    return [
        EpochsOf(
            fresh(each),
            STEPS,
            about=about,
            checkpoint=None if folder is None else folder / f"{each}.pt",
        )
        for each in BOTH
    ]


def train(found: list[EpochsOf], epochs: int = EPOCHS) -> list[Any]:
    """Train, and return losses and scales of all steps, and what is told rightly in the end."""
    train_epochs(found, epochs=epochs, clock=FakeTime().clock())
    told = []
    for each in found:
        assert each.arm.right is not None
        told.append(each.joined() | {"right": each.arm.right().tolist()})
    return told


@pytest.fixture(scope="module")
def unbroken() -> list[Any]:
    return train(trainings(None))


@pytest.mark.parametrize("after", [0, 1, 4, 5, 7, 9, 13, 23], ids="after-{}-steps".format)
def test_it_goes_on_where_it_was_broken_off(
    tmp_path: Path, unbroken: list[Any], after: int
) -> None:
    """Wherever that was: in the midst of an epoch it is that epoch which is lost."""
    taken: list[Any] = []

    def breaking(step: Callable[[Any], Tensor], batch: Any) -> Tensor:
        if len(taken) == after:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(batch)

    found = trainings(tmp_path)
    for each in found:
        each.arm.step = partial(breaking, each.arm.step)
    with pytest.raises(KeyboardInterrupt):
        train(found)
    torch.manual_seed(99)  # another process, which has drawn other numbers
    again = trainings(tmp_path)
    assert sum(len(each.runs) for each in again) == after // STEPS
    assert train(again) == unbroken


def shuffling(precision: Precision, device: torch.device, seed: int) -> Training:
    """Return such a training whose loader draws from the random numbers that dropout draws from."""
    training, data = dropping(precision, device, seed), digits()
    told = TensorDataset(data.images, data.labels)
    training.batches = DataLoader(told, batch_size=6, shuffle=True, drop_last=True)
    return training


def test_a_loader_that_draws_its_order_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    """Though an epoch of the loader ends in the midst of one that is measured."""

    def losses_after(*epochs: int) -> list[tuple[float, ...]]:
        for number in epochs:
            torch.manual_seed(number)
            arm = Workload(name="shuffling", make=shuffling).arm(Precision.fp32, CPU)
            path = tmp_path / f"{len(epochs)}.pt"
            each = EpochsOf(arm, STEPS - 1, checkpoint=path)
            train_epochs([each], epochs=number, clock=FakeTime().clock())
        return [run.losses for run in each.runs]

    assert losses_after(2, 3, EPOCHS) == losses_after(EPOCHS)


def test_a_state_that_lies_on_the_host_goes_back_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's number of steps does, wherever its weights are."""
    path = tmp_path / "fp32.pt"
    train([EpochsOf(fresh(Precision.fp32), STEPS, checkpoint=path)], epochs=1)
    monkeypatch.setattr("perfsuite.training.snapshot.device_of", lambda _: Cpu())
    elsewhere = replace(fresh(Precision.fp32), device=torch.device("meta"))
    assert len(EpochsOf(elsewhere, STEPS, checkpoint=path).runs) == 1
    (optimizer,) = elsewhere.optimizers
    assert {state["step"].device for state in optimizer.state.values()} == {CPU}


def test_the_precisions_take_turns_and_do_not_disturb_each_other(unbroken: list[Any]) -> None:
    order: list[str] = []

    def noting(step: Callable[[Any], Tensor], label: str, batch: Any) -> Tensor:
        order.append(label)
        return step(batch)

    found = trainings(None)
    for each in found:
        each.arm.step = partial(noting, each.arm.step, each.arm.label)
    train(found)
    assert order[::STEPS] == ["fp32", "fp16", "fp16", "fp32"] * (EPOCHS // 2)
    alone = [train([EpochsOf(fresh(precision), STEPS)]) for precision in BOTH]
    assert [losses_of for (losses_of,) in alone] == unbroken


def test_a_checkpoint_of_another_training_is_none(tmp_path: Path) -> None:
    train(trainings(tmp_path, data="mnist5k"), epochs=1)
    assert [len(each.runs) for each in trainings(tmp_path, data="mnist5k")] == [1, 1]
    others = trainings(tmp_path, data="mnist")
    assert [(len(each.runs), each.differs) for each in others] == [(0, {"data"})] * 2
    longer = EpochsOf(fresh(Precision.fp32), STEPS + 1, checkpoint=tmp_path / "fp32.pt")
    assert longer.runs == []
    assert {"data", "steps"} <= longer.differs


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("name", ["model.py", "new.py", "notes.txt"])
def test_a_checkpoint_of_other_code_is_none(tmp_path: Path, name: str, committed: bool) -> None:
    (tmp_path / "model.py").write_text("width = 16", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("kept/", encoding="utf-8")
    for command in (["add", "."], ["commit", "--quiet", "--message=first"]):
        git_in(tmp_path, *command)
    kept = tmp_path / "kept"
    train(trainings(kept), epochs=1)
    assert [len(each.runs) for each in trainings(kept)] == [1, 1]
    (tmp_path / name).write_text("width = 32", encoding="utf-8")
    if committed:
        git_in(tmp_path, "add", ".")
        git_in(tmp_path, "commit", "--quiet", "--message=second")
    # What is no program, and in no commit, may be what a run left there.
    same = name == "notes.txt" and not committed
    assert [len(each.runs) for each in trainings(kept)] == ([1, 1] if same else [0, 0])


def test_where_no_git_tells_of_the_code_each_training_begins_anew(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("bare")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    train(trainings(folder), epochs=1)
    assert [len(each.runs) for each in trainings(folder)] == [0, 0]


def test_a_checkpoint_of_other_threads_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epochs took another time."""
    train(trainings(tmp_path), epochs=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 97)
    assert [len(each.runs) for each in trainings(tmp_path)] == [0, 0]


def test_a_checkpoint_of_a_device_that_is_not_here_is_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("torch.serialization.location_tag", lambda _: "cuda:97")
        train(trainings(tmp_path, hardware="gpu"), epochs=1)
    assert [len(each.runs) for each in trainings(tmp_path, hardware="cpu")] == [0, 0]


def test_what_is_done_is_forgotten(tmp_path: Path) -> None:
    found = trainings(tmp_path)
    train(found, epochs=1)
    assert len(list(tmp_path.glob("*.pt"))) == len(BOTH)
    for each in found:
        each.forget()
        each.forget()
    assert list(tmp_path.glob("*.pt")) == []


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "half"])
def test_a_damaged_checkpoint_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    train(trainings(tmp_path), epochs=1)
    path = tmp_path / "fp32.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(TrainingError, match=r"fp32\.pt is no checkpoint .*: remove it"):
        trainings(tmp_path)


def test_progress_begins_where_the_checkpoints_are(tmp_path: Path) -> None:
    train(trainings(tmp_path), epochs=2)
    shown: list[tuple[int, int]] = []
    train_epochs(
        trainings(tmp_path),
        epochs=3,
        clock=FakeTime().clock(),
        progress=lambda done, of: shown.append((done, of)),
    )
    assert shown[0] == (4, 6)
    assert shown[-2:] == [(5, 6), (6, 6)]


def test_every_tenth_digit_is_held_out_and_told_in_one_order(narrow_head: None) -> None:
    arm = tutorial_workload("tiny", hold_out=True).arm(Precision.bf16, CPU)
    assert arm.epoch_steps == 4500 // 16
    assert arm.right is not None
    before = [each.clone() for each in arm.parameters()]
    right = arm.right()
    assert (right.dtype, right.shape) == (torch.bool, (500,))
    assert torch.equal(right, arm.right())
    assert all(map(torch.equal, arm.parameters(), before))
    assert arm.models[0].training


def test_no_digit_is_both_learnt_from_and_held_out() -> None:
    labels = torch.arange(101)
    images = labels.float().view(-1, 1, 1, 1)
    learnt, held_out = Digits(source="numbered", images=images, labels=labels).split()
    assert held_out.labels.tolist() == list(range(0, 101, 10))
    assert sorted(learnt.labels.tolist() + held_out.labels.tolist()) == labels.tolist()
    assert torch.equal(learnt.images.flatten(), learnt.labels.float())
