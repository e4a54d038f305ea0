"""What is told of ranks: how they talk, and that their machines are alike."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist

from perfsuite.devices.rank_facts import settings, shared_facts, talk
from perfsuite.devices.ranks import Ranks
from perfsuite.devices.torchrun import RankError, Seat

ALIKE = {"hardware": "nvidia-h100-x1-80gib-ranks-32x8", "torch": "2.15.0"}
FACTS = {"CPU": "a", "power limit in W": 700.0, "interconnect": "18 NVLinks"}


class Told(Ranks):
    """Rank 0 of several, the others of which tell what the test says."""

    def __init__(self, others: Sequence[Any], nodes: int = 1) -> None:
        ranks = 1 + len(others)
        super().__init__(Seat(ranks=ranks, local_ranks=ranks // nodes))
        self._others = others

    def each(self, value: Any) -> list[Any]:
        return [value, *self._others]


def test_ranks_on_like_machines_have_the_facts_of_one_and_their_number() -> None:
    found = shared_facts(Told([(ALIKE, FACTS)] * 255, nodes=32), alike=ALIKE, facts=FACTS)
    assert found == {**FACTS, "ranks": 256, "nodes": 32}


def test_a_fact_in_which_ranks_differ_says_whose_it_is() -> None:
    capped = FACTS | {"power limit in W": 500.0}
    others = [(ALIKE, FACTS), (ALIKE, capped), *[(ALIKE, FACTS)] * 5]
    found = shared_facts(Told(others), alike=ALIKE, facts=FACTS)
    assert found["power limit in W"] == "700.0 on ranks 0, 1, 3 and 4 more, 500.0 on rank 2"
    assert found["CPU"] == "a"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"torch": "2.14.0"}, "torch: 2.15.0 on ranks 0, 1, 2.14.0 on rank 2"),
        ({"hardware": "nvidia-h200"}, f"hardware: {ALIKE['hardware']} on ranks 0, 1, nvidia-h200"),
        ({"driver": "580"}, "driver: None on ranks 0, 1, 580 on rank 2"),
    ],
)
def test_ranks_on_unlike_machines_are_refused_by_number(changed: dict[str, str], told: str) -> None:
    others = [(ALIKE, FACTS), (ALIKE | changed, FACTS)]
    with pytest.raises(RankError) as error:
        shared_facts(Told(others), alike=ALIKE, facts=FACTS)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_of_the_environment_what_steers_nccl_and_gloo_is_kept_and_no_host() -> None:
    environment = {
        "NCCL_ALGO": "Ring",
        "TORCH_NCCL_BLOCKING_WAIT": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "TORCH_GLOO_LAZY_INIT": "1",
        "NCCL_COMM_ID": "node7:29500",
        "NCCL_HOSTID": "node7",
        "MASTER_ADDR": "node7",
        "HOSTNAME": "node7",
    }
    assert settings(environment) == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_ALGO": "Ring",
        "TORCH_GLOO_LAZY_INIT": "1",
        "TORCH_NCCL_BLOCKING_WAIT": "1",
    }


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("cpu:gloo", {"collectives": "gloo"}),
        ("cpu:gloo,cuda:nccl", {"collectives": "nccl", "NCCL": "2.30.7"}),
    ],
)
def test_the_version_of_nccl_is_told_where_it_is_used(
    config: str, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend", lambda: told["collectives"])
    monkeypatch.setattr(dist, "get_backend_config", lambda: config)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 30, 7))
    for name in settings():
        monkeypatch.delenv(name)
    assert talk() == told
