"""The study of peers: who takes longer is told by steps of known time, and its page by its JSON."""

from pathlib import Path
from typing import Any

import msgspec
import peers_study
import pytest
import torch
from imported_names import imported
from peer_workloads import gpt2, peer_workloads, resnet50
from stepped_arms import NOTHING, NOW_S, make_clock

import perfsuite
from perfsuite.devices.precision import Precision, fp32_flags, read_flags
from perfsuite.judging.gates import Outcome
from perfsuite.judging.interleaving import Duet
from perfsuite.training.arm import Arm
from perfsuite.training.workload import Workload

STUDIES = Path(peers_study.__file__).parent
RECORDED = sorted((STUDIES.parent / "docs" / "studies").glob("peers-*.json"))
CPU = torch.device("cpu")


class Takes:
    """A step that takes a time of its own, which drifts: the machine becomes slower."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.calls = step_s, 0

    def __call__(self, batch: Any) -> torch.Tensor:  # noqa: ARG002  # as a step is called
        self.calls += 1
        NOW_S[0] += self.step_s * (1 + NOW_S[0] / 50)
        return NOTHING


def turns(ours: Takes, theirs: Takes) -> Duet:
    NOW_S[0] = 0.0
    arm = Arm(step=ours, batches=iter([NOTHING] * 10_000), device=CPU)
    return peers_study.side_by_side(
        arm, theirs, make_clock(), steps=2, budget_s=0.0, timer=lambda: NOW_S[0]
    )


@pytest.mark.parametrize(
    ("overhead", "outcome"),
    [(0.0, Outcome.PASS), (0.01, Outcome.PASS), (0.05, Outcome.FAIL), (-0.05, Outcome.FAIL)],
)
def test_a_harness_that_adds_to_a_step_is_told(overhead: float, outcome: Outcome) -> None:
    found = turns(Takes(0.001 * (1 + overhead)), Takes(0.001))
    assert peers_study.judge(found).outcome is outcome
    ratio = found.ratio("A", over="B", confidence=0.99)
    # A drift of the machine that a comparison one after the other would find for a difference.
    assert ratio.value == pytest.approx(1 + overhead, rel=2e-3)


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.tf32])
def test_both_time_the_same_steps_in_one_arithmetic_with_as_many_threads(
    precision: Precision,
) -> None:
    threads: list[int] = []
    flags: list[dict[str, Any]] = []
    step = Takes(0.001)

    def seen(batch: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        flags.append(read_flags())
        return step(batch)

    NOW_S[0] = 0.0
    block = peers_study.timed_by_peer(seen, NOTHING, 5, precision, timer=lambda: NOW_S[0])()
    assert set(threads) == {torch.get_num_threads()}
    wanted = fp32_flags(precision)
    assert all({name: each[name] for name in wanted} == wanted for each in flags)
    assert (block.steps, step.calls) == (5, 7)  # Timer warms up by two of its own
    assert block.wall_s == pytest.approx(0.001, rel=1e-3)


def test_on_a_gpu_both_are_judged_by_the_hosts_clock() -> None:
    """Timer has no other, and the page shows that one."""
    clock = make_clock()
    clock.stop = lambda: (0.004, 0.001)  # type: ignore[method-assign]  # of two steps
    arm = Arm(step=Takes(0.002), batches=iter([NOTHING] * 10), device=CPU)
    block = peers_study.timed_by_us(arm, clock, 2)()
    assert (block.step_s, block.wall_s, block.device_s) == (0.002, 0.002, None)


def test_the_page_is_made_of_what_was_recorded() -> None:
    found = turns(Takes(0.00105), Takes(0.001))
    case = peers_study.PeerCase(
        workload="net",
        data="noise",
        precision="fp32",
        steps=2,
        order=found.order,
        step_s=[block.wall_s for block in found.blocks],
        load_1min=None,
    )
    again = msgspec.json.decode(msgspec.json.encode(case), type=peers_study.PeerCase)
    assert peers_study.judge(again.turns()) == peers_study.judge(found)
    told = peers_study.page(peers_study.PeersStudy(hardware="here", torch="2", cases=[again]))
    assert "| net | noise | fp32 | 1.05" in told
    assert told.rstrip().endswith("| FAIL |")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_published_page_of_peers_is_what_its_json_says(path: Path) -> None:
    study = msgspec.json.decode(path.read_bytes(), type=peers_study.PeersStudy)
    assert path.with_suffix(".md").read_text().rstrip() == peers_study.page(study).rstrip()


def test_trainings_of_others_need_public_names_alone() -> None:
    names = {n for n in imported(STUDIES / "peer_workloads.py") if n.startswith("perfsuite")}
    assert names <= {"perfsuite", *(f"perfsuite.{name}" for name in perfsuite.__all__)}


@pytest.mark.slow  # it imports Transformers
@pytest.mark.parametrize(
    ("name", "precision"), [("resnet50", Precision.bf16), ("gpt2-small", Precision.fp32)]
)
def test_trainings_of_others_learn(name: str, precision: Precision) -> None:
    if name == "gpt2-small":
        pytest.importorskip("transformers")
    small: Any = {
        "resnet50": lambda *about: resnet50(*about, images=2, side=32),
        "gpt2-small": lambda *about: gpt2(*about, texts=2, width=32),
    }
    arm = Workload(name=name, make=small[name]).arm(precision, CPU)
    losses = [arm.step(batch).item() for batch in arm.take(6)]
    assert min(losses[1:]) < losses[0]
    assert name in {workload.name for workload in peer_workloads(large=False)}
