"""The ledger of a step: what costs is found, with its line; what costs nothing is not."""

from collections.abc import Callable
from importlib import util
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ledger_cases import COSTLY, FREE, SOURCE
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from perfsuite import Arm, TrainingError, count_step
from perfsuite.judging.counts import Ledger, changes
from perfsuite.measuring.tracing import traced
from perfsuite.training.snapshot import parts_of

MakeCounts = Callable[[str], Ledger]


@pytest.fixture
def count(tmp_path: Path) -> MakeCounts:
    """Count the step of a program, given as its text."""

    def counted(source: str) -> Ledger:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        path = folder / "program.py"
        path.write_text(source)
        spec = util.spec_from_file_location("program", path)
        assert spec is not None
        assert spec.loader is not None
        program = util.module_from_spec(spec)
        spec.loader.exec_module(program)
        step, state = program.make()
        return count_step(arm_of(step, (torch.randn(4, 3, 16, 16), torch.arange(4)), state))

    return counted


def arm_of(step: Callable[[Any], Any], batch: Any, state: Any = ()) -> Arm:
    device = torch.device("cpu")
    return Arm(step=step, batches=repeat(batch), device=device, parts=parts_of(state))


@pytest.mark.parametrize("case", COSTLY)
def test_what_costs_is_found_with_its_line(case: str, count: MakeCounts) -> None:
    old, new, line = COSTLY[case]
    assert old in SOURCE
    found = changes(count(SOURCE), count(SOURCE.replace(old, new)))
    told = [place for change in found for place in change.places]
    assert any(place.endswith(f": {line}") for place in told), "\n".join(map(str, found))


@pytest.mark.parametrize("case", FREE)
def test_what_costs_nothing_changes_no_count(case: str, count: MakeCounts) -> None:
    old, new = FREE[case]
    assert old in SOURCE
    before, after = count(SOURCE), count(SOURCE.replace(old, new))
    assert list(map(str, changes(before, after))) == []
    assert before.unsteady == after.unsteady == []


def test_twenty_of_each_are_tried() -> None:
    assert min(len(COSTLY), len(FREE)) >= 20


def test_a_backward_operator_is_told_by_the_line_of_its_forward_pass(count: MakeCounts) -> None:
    sites = count(SOURCE).sites["backward: convolution_backward bfloat16"]
    assert list(sites) == ["stem (Conv2d), program.py:31: x = self.norm(self.stem(images))"]


def test_flops_are_counted_by_precision() -> None:
    layer = nn.Linear(8, 4)

    def step(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss: torch.Tensor = layer(batch).float().sum()
        loss.backward()
        return loss.detach()

    ledger = count_step(arm_of(step, torch.ones(2, 8), [layer]))
    # Forward, and backward for the weights: the batch needs no gradient.
    assert ledger.counts["FLOPs bfloat16"] == 2 * (2 * 2 * 8 * 4)
    assert ledger.counts["parameters"] == 8 * 4 + 4


def test_bytes_are_those_of_new_storages() -> None:
    def step(batch: torch.Tensor) -> torch.Tensor:
        doubled = batch * 2  # 4,000 bytes
        del doubled
        tripled = batch * 3  # another 4,000, while the first are gone
        return tripled.view(-1).sum()  # 4

    counts = count_step(arm_of(step, torch.ones(1000))).counts
    assert counts["bytes allocated"] == 8004
    assert counts["bytes alive at the peak"] == 4004


def test_random_numbers_are_counted_where_they_are_drawn() -> None:
    def step(batch: torch.Tensor) -> torch.Tensor:
        attention = nn.functional.scaled_dot_product_attention(batch, batch, batch)  # draws none
        return nn.functional.dropout(attention, 0.5).sum()

    counts = count_step(arm_of(step, torch.ones(1, 2, 3, 4))).counts
    assert counts["random numbers"] == 24


def test_random_numbers_of_an_accelerator_are_counted_though_no_tensor_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accelerator = torch.Generator()

    class Accelerator(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            drawn = func is torch.ops.aten.randn.generator
            return func(*args, **({"generator": accelerator} if drawn else kwargs or {}))

    module = SimpleNamespace(get_rng_state=lambda _: accelerator.get_state())
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    with Accelerator(), traced() as trace:  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.ops.aten.randn.generator([4], generator=None, device=torch.device("cuda"))
    assert [call.drawn for call in trace.calls] == [4]


def test_what_differs_from_step_to_step_is_unsteady_and_not_counted() -> None:
    taken: list[None] = []

    def step(batch: torch.Tensor) -> torch.Tensor:
        taken.append(None)
        return sum((batch.cos() for _ in taken), batch).sum()

    ledger = count_step(arm_of(step, torch.ones(3)))
    assert "forward: cos float32" in ledger.unsteady
    assert "forward: cos float32" not in ledger.counts
    assert ledger.counts["forward: sum float32"] == 1


def test_a_scaler_that_still_skips_steps_is_waited_for() -> None:
    layer = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = layer(batch).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    ledger = count_step(arm_of(step, torch.ones(2, 4), [layer, optimizer, scaler]))
    assert ledger.counts["optimizer steps"] == 1
    assert ledger.unsteady == []


def test_a_step_without_models_is_counted_too() -> None:
    ledger = count_step(arm_of(torch.sum, torch.ones(3)))
    assert ledger.counts["forward: sum float32"] == 1
    assert "parameters" not in ledger.counts


def test_a_batch_of_another_shape_is_refused() -> None:
    shapes = iter([3, 4, 5, 6, 7])
    arm = Arm(step=torch.sum, batches=(torch.ones(n) for n in shapes), device=torch.device("cpu"))
    with pytest.raises(TrainingError, match="change their shape"):
        count_step(arm)


def test_places_are_unknown_where_torch_tells_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_current_autograd_node")
    layer = nn.Linear(2, 1)

    def step(batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = layer(batch).sum()
        loss.backward()
        return loss.detach()

    sites = count_step(arm_of(step, torch.ones(1, 2), [layer])).sites
    backward = [
        each for name, found in sites.items() if name.startswith("backward") for each in found
    ]
    assert set(backward) == {"unknown place"}


def test_the_path_of_a_source_is_as_an_import_would_find_it(
    count: MakeCounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (site,) = count(SOURCE).sites["forward: relu bfloat16"]
    assert site == "Net, 0/program.py:32: x = F.relu(x)"


def test_a_compiled_step_is_counted_as_it_is_written() -> None:
    plain = nn.Linear(3, 2)

    def count(model: Any) -> Ledger:
        def step(batch: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = model(batch).sum()
            loss.backward()
            return loss.detach()

        return count_step(arm_of(step, torch.ones(2, 3), [plain]))

    more = changes(count(plain), count(torch.compile(plain)))
    assert {change.name.partition(":")[0] for change in more} == {"compiler"}


def test_sparse_gradients_are_counted() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = table(batch).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    counts = count_step(arm_of(step, torch.tensor([1, 2]), [table, optimizer])).counts
    assert counts["optimizer steps"] == 1
    assert counts["bytes allocated"] > 0
