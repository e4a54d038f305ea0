"""What the pages say of names, words, defaults and messages is what the code says."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from html import unescape
from pathlib import Path
from typing import Any, get_args

import first_table
import msgspec
import pytest
import torch
from documents import DOCS, ROOT, blocks, rows, section, text_of
from sequence import draw
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transcript import BEGIN, END

import perfsuite
import perfsuite.benchmarks
from perfsuite.against import verdicts
from perfsuite.judging import counts, host_bound
from perfsuite.judging.confirmation import ENVIRONMENT
from perfsuite.judging.gates import Outcome
from perfsuite.judging.thresholds import Gate, Pair, Thresholds, load_thresholds
from perfsuite.measuring.identity import identity_of
from perfsuite.probes.across_ranks import ACROSS_RANKS

OWN, THRESHOLDS = DOCS / "own-training.md", DOCS / "thresholds.md"


def test_every_public_name_is_in_the_reference_once() -> None:
    lines = text_of(DOCS / "reference.md").splitlines()
    named = [line.removeprefix("::: perfsuite.") for line in lines if line.startswith(":::")]
    assert sorted(name for name in named if "." not in name) == sorted(perfsuite.__all__)


@pytest.mark.parametrize("table", [each.name for each in msgspec.structs.fields(Thresholds)])
def test_every_key_of_a_table_is_told_with_its_defaults(table: str) -> None:
    def told(value: Any) -> str:
        if isinstance(value, tuple):
            return f"`{list(value)}`".replace("'", '"')
        return "none" if value is None or value == {} else f"`{value}`"

    nowhere = Path("no such file")
    here, cpu = (getattr(load_thresholds(nowhere, key), table) for key in ("", "cpu-x"))
    keys = [table]
    if isinstance(here, msgspec.Struct):
        keys = [each.name for each in msgspec.structs.fields(here)]
        here, cpu = msgspec.structs.asdict(here), msgspec.structs.asdict(cpu)
    else:
        here, cpu = {table: here}, {table: cpu}
    expected = [[f"`{key}`", told(here[key]), told(cpu[key])] for key in keys]
    found = rows(section(THRESHOLDS, table))
    assert [[key, *defaults] for key, _, *defaults in found] == expected


def test_every_gate_and_pair_is_told() -> None:
    text = text_of(THRESHOLDS)
    assert [each for each in (*get_args(Gate), *get_args(Pair)) if f"`{each}`" not in text] == []


def test_the_page_of_the_ledger_shows_a_change_as_it_is_told() -> None:
    sites = (
        {"net.py:7: x = self.a(x)": 2},
        {"net.py:7: x = self.a(x)": 2, "net.py:9: x = self.b(x)": 14},
    )
    again = ({"net.py:7: x = self.a(x)": 4}, {"train.py:31: model[0].unshard()": 1})
    page = (DOCS / "ledger.md").read_text(encoding="utf-8")
    for name, then, now in (
        ("forward: cast float32 -> bfloat16", *sites),
        ("forward: all_gather bfloat16", again[0], again[0] | again[1]),
    ):
        sides = [
            counts.Ledger(counts={name: sum(s.values())}, sites={name: s}) for s in (then, now)
        ]
        (line,) = counts.told(counts.changes(*sides))
        assert f"```text\n{line}\n```" in page


def test_every_word_of_a_verdict_is_explained() -> None:
    one = {cells[0] for cells in rows(section(DOCS / "verdicts.md", "One tree"))}
    assert one == {outcome.value for outcome in Outcome} | {
        counts.WORD,
        host_bound.WORD,
        ENVIRONMENT,
    }
    two = {
        word
        for cells in rows(section(DOCS / "verdicts.md", "Two trees"))
        for word in cells[0].split(", ")
    }
    kinds = "_TIME", "_BYTES", "_LOSS", "_LOWER", "_HIGHER"
    words = {word for kind in kinds for word in getattr(verdicts, kind)}
    assert two == words | {counts.WORD, "SAME", "INCONCLUSIVE", "FAIL"}


def test_the_verdict_that_is_taken_apart_is_one_that_was_given() -> None:
    shown, *_ = blocks(DOCS / "verdicts.md", "text")
    assert shown.strip() in unescape(text_of(DOCS / "sabotage.md"))


def test_the_first_table_has_the_standard_benchmarks_and_nothing_else() -> None:
    """Their figures are a machine's; `test_commands` holds the rows against a session."""
    shown = text_of(DOCS / "start.md").partition(first_table.BEGIN)[2].partition(first_table.END)[0]
    named = set(re.findall(r"(\w+)\[[\w-]+\]", shown))
    asked = {name: getattr(perfsuite.benchmarks, name) for name in perfsuite.benchmarks.__all__}
    of_one_rank = {
        name.removeprefix("test_")
        for name, each in asked.items()
        if all(mark.name != "many_ranks" for mark in getattr(each, "pytestmark", ()))
    }
    assert named == of_one_rank, "run `make first-table`"
    assert shown.count(f"{len(perfsuite.PROBES)} probes passed") == 2


def test_both_pages_show_the_same_comparison() -> None:
    pages = [text_of(page) for page in (ROOT / "README.md", DOCS / "before-after.md")]
    parts = [page.partition(BEGIN)[2].partition(END)[0] for page in pages]
    assert parts[0] == parts[1] != ""


def test_every_probe_is_told() -> None:
    found = [cells[0].strip("`") for cells in rows(section(OWN, "What the probes need"))]
    assert found == [probe.name for probe in perfsuite.PROBES]
    across = [cells[0].strip("`") for cells in rows(section(OWN, "Trained by several ranks"))]
    assert across == [probe.name for probe in ACROSS_RANKS]


def test_every_setting_of_a_workload_is_told_with_its_default() -> None:
    found = {cells[0]: cells[2] for cells in rows(section(OWN, "How long it takes"))}
    settings = {f"`{each.name}`": f"`{each.default}`" for each in fields(perfsuite.Workload)}
    about = {f"`{name}`" for name in ("name", "make", "data")}
    assert found == {name: settings[name] for name in settings if name not in about}


# Bad input: what is wrong, and a training of which it is.

CPU = torch.device("cpu")
ONE = [torch.ones(8, 3)]


def training(
    step: Callable[[Any], Any] = Tensor.mean, *, batches: Iterable[Any] = ONE, state: Any = ()
) -> perfsuite.Training:
    return perfsuite.Training(step=step, batches=batches, state=state)


def moving() -> perfsuite.Training:
    model = nn.Linear(3, 1, bias=False)

    def step(batch: Tensor) -> Tensor:
        model.to("meta")
        return batch.mean()

    return training(step, state=[model])


def only_once() -> Iterator[Tensor]:
    yield from ONE


class Holds:
    """Something whose state holds a generator, as a loader that could go on might."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": 0, "batches": only_once()}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def unpicklable() -> perfsuite.Training:
    """Ask for worker processes that are handed a generator, and a function in a function."""
    data: Any = [only_once()]
    loader: Any = DataLoader(
        data, num_workers=1, multiprocessing_context="spawn", collate_fn=lambda _: ONE[0]
    )
    return training(batches=loader)


def a_tuple() -> Any:
    return (1, 2)


WRONG: dict[str, Callable[[], perfsuite.Training]] = {
    "the step returns no tensor": lambda: training(lambda batch: batch.mean().item()),
    "the loss has many values": lambda: training(lambda batch: batch.sum(1)),
    "the function returns something else": a_tuple,
    "batches are a generator": lambda: training(batches=only_once()),
    "there are no batches": lambda: training(batches=[]),
    "the last batch is smaller": lambda: training(batches=[*ONE, torch.ones(5, 3)]),
    "a batch holds no tensor": lambda: training(lambda _: torch.ones(()), batches=[{"n": 1}]),
    "something in `state` cannot be copied": lambda: training(state=[nn.Linear(3, 1), 7]),
    "a `state_dict` holds a generator": lambda: training(state=[Holds()]),
    "a loader's processes cannot be given its data": unpicklable,
    "a step moves its model": moving,
}


@pytest.mark.parametrize(("wrong", "message"), rows(section(OWN, "When something is wrong")))
def test_the_message_that_is_shown_is_the_one_that_comes(wrong: str, message: str) -> None:
    workload = perfsuite.Workload(name="mine", make=lambda *_: WRONG[wrong]())
    with pytest.raises(perfsuite.TrainingError) as caught:  # noqa: PT012  # wherever it comes from
        arm = workload.arm(perfsuite.Precision.fp32, CPU)
        identity_of(arm)
        arm.take(3)
        arm.snapshot()
    assert str(caught.value) == message


def test_all_that_can_be_wrong_is_told() -> None:
    assert WRONG.keys() == {cells[0] for cells in rows(section(OWN, "When something is wrong"))}


def test_what_no_diagram_can_show_is_an_error_and_not_left_out() -> None:
    known = "sequenceDiagram\nparticipant A as one\nparticipant B as two<br/>here\nA->>B: go\n"
    assert all(f">{word}</text>" in draw(known) for word in ("one", "two", "here", "go"))
    with pytest.raises(ValueError, match="not drawn: Note over A: sleeps"):
        draw(known + "Note over A: sleeps\n")
