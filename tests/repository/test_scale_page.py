"""What docs/scale.md says of very many ranks: its figures, its commands, and the files it names."""

import re
import shlex
import subprocess
from dataclasses import replace
from string import Template
from typing import Any

import msgspec
import pytest
import scale_page
import yaml
from documents import DOCS, ROOT, blocks, section, text_of
from scale_page import BEGIN, END, MODELLED, PER_BLOCK, RING, ScaleStudy, block_s, modelled_s
from scale_study import FIGURES, exchange, made_up, run_of
from torch.distributed.run import get_args_parser

from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import Seat
from perfsuite.judging.blocks import MOST_RANKS, RanksInShort, State
from perfsuite.measuring.machine import machine

PAGE, FILES = DOCS / "scale.md", ROOT / "examples" / "scale"
SLURM, KUBERNETES = FILES / "slurm.sbatch", FILES / "pytorchjob.yaml"
OF_SLURM = {
    "SLURM_NNODES": "32",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_JOB_ID": "7",
    "first": "a",
    "port": "20007",
}


def published() -> ScaleStudy:
    return msgspec.json.decode(FIGURES.read_bytes(), type=ScaleStudy)


def test_the_tables_are_what_the_json_says() -> None:
    between = text_of(PAGE).partition(BEGIN)[2].partition(END)[0]
    assert between.strip() == scale_page.table(published())


def test_what_depends_on_the_number_of_ranks_alone_is_still_so() -> None:
    for then in published().made_up:
        rounds, sent = exchange(then.ranks)
        assert (rounds, PER_BLOCK["numbers"] * sent) == (then.rounds, then.block_bytes)
        assert len(run_of(then.ranks)) == pytest.approx(then.run_bytes, rel=0.1)
    sizes = {each.ranks: each.run_bytes for each in published().made_up}
    assert sizes[4096] < 1.05 * sizes[512]
    assert exchange(4096) == (12, 8 * 4095)
    now, (then, *_) = made_up(2), published().made_up
    assert (now.rounds_to_judge, now.memory_bytes) == (then.rounds_to_judge, then.memory_bytes)


def test_the_model_says_what_the_page_says() -> None:
    study, most = published(), MODELLED[-1]
    assert modelled_s(study, RING, most) > 50 * modelled_s(study, "each", most)
    assert block_s(study, most) < 5 * block_s(study, MODELLED[0])
    last = study.real[-1]
    assert last.sockets > last.ranks > last.lazy_sockets


class Counted(Ranks):
    """Two ranks that are alike, and how often each way of asking was used."""

    def __init__(self) -> None:
        super().__init__(Seat(ranks=2, local_ranks=2))
        self.asked = dict.fromkeys(PER_BLOCK, 0)

    def meet(self) -> None:
        self.asked["meet"] += 1

    def numbers(self, *own: float) -> list[tuple[float, ...]]:
        self.asked["numbers"] += 1
        return [own, own]

    def agreed(self, value: Any, *, of: int = 0) -> Any:
        del of
        self.asked["agreed"] += 1
        return value


def test_a_block_asks_all_ranks_as_often_as_the_study_says() -> None:
    ranks = Counted()
    here = replace(machine("cpu"), ranks=ranks)
    clock = here.clock()
    clock.start()
    clock.stop()
    here.sensor().held_back(State(), State())
    here.time_s()
    assert ranks.asked == PER_BLOCK


def test_the_page_names_what_is_kept_of_many_ranks() -> None:
    text = section(PAGE, "What grows with ranks, and what does not")
    assert all(f"`{name}`" in text for name in RanksInShort.__dataclass_fields__)
    assert f"more than {MOST_RANKS} ranks" in text.replace("\n", " ")


def started(command: str) -> Any:
    """Return what torchrun understands of a command; an exit where it does not."""
    words = shlex.split(command)
    return get_args_parser().parse_args(words[words.index("torchrun") + 1 :])


def written(arguments: list[str], config: pytest.Config) -> str:
    """Return where the run goes by the arguments of a rank, of which pytest knows all."""
    assert arguments[0] == "benchmarks"
    options = dict(each.split("=") for each in arguments[1:])
    assert all(hasattr(config.option, name.strip("-").replace("-", "_")) for name in options)
    return options["--benchmark-json"]


@pytest.mark.parametrize("nodes", [1, 32])
def test_commands_are_understood_by_torchrun_and_pytest(
    nodes: int, pytestconfig: pytest.Config
) -> None:
    (command,) = (
        each
        for each in blocks(PAGE, "text")
        if ("--standalone" in each) == (nodes == 1) and "torchrun" in each
    )
    found = started(command)
    assert found.module
    assert (int(found.nproc_per_node), found.training_script) == (8, "pytest")
    assert found.standalone or int(found.nnodes) == nodes
    assert written(found.training_script_args, pytestconfig) == "run.json"


def test_slurm_starts_a_torchrun_a_machine_and_a_rank_a_gpu(pytestconfig: pytest.Config) -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = text_of(SLURM)
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.M))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("32", "1", "8")
    assert "exclusive" in asked
    (command,) = re.findall(r"^srun (?:.*\\\n)*.*$", text, re.M)
    found = started(Template(command.replace("\\\n", " ")).substitute(OF_SLURM))
    assert (found.nnodes, found.nproc_per_node, found.rdzv_endpoint) == ("32", "8", "a:20007")
    assert written(found.training_script_args, pytestconfig) == "run-7.json"
    assert found.max_restarts == 0
    assert "export TORCH_GLOO_LAZY_INIT=1" in text


def test_kubernetes_starts_as_many_machines_as_slurm(pytestconfig: pytest.Config) -> None:
    job = yaml.safe_load(text_of(KUBERNETES))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert {name: each["replicas"] for name, each in replicas.items()} == {
        "Master": 1,
        "Worker": 31,
    }
    for each in replicas.values():
        (container,) = each["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert (
            str(container["resources"]["limits"]["nvidia.com/gpu"]) == job["spec"]["nprocPerNode"]
        )
        assert container["env"] == [{"name": "TORCH_GLOO_LAZY_INIT", "value": "1"}]
        mounted = {volume["name"] for volume in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in each["template"]["spec"]["volumes"]}
        found = started(shlex.join(container["command"]))
        assert written(found.training_script_args, pytestconfig) == "/results/run.json"
        assert each["restartPolicy"] == "Never"
    assert job["spec"]["runPolicy"]["backoffLimit"] == 0


def test_all_files_are_in_the_page() -> None:
    named = re.findall(r"\]\(\.\./examples/scale/(.+?)\)", text_of(PAGE))
    assert sorted(path.name for path in FILES.iterdir()) == sorted(named)
