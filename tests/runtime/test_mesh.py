"""Real processes over gloo do what the cluster in one process does: bit for bit for two, to rounding for more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles.pipelines import PipedMLP
from oracles.processes import run_processes
from oracles.spread import Case, case, case_of, in_one_process
from partita.compiler.devices import partitioned
from partita.compiler.ir import layout as compiler
from partita.compiler.partition.choices import Wishes
from partita.runtime.layout import Mesh
from partita.runtime.mesh import ways_of
from partita.runtime.program import Receive
from samples.small_models import GROUPED, MIXTURE, sent_to_experts, small_step
from samples.spread_mlp import SpreadMLP

DATA, TENSOR, BOTH = Mesh((("data", 2),)), Mesh((("tensor", 2),)), Mesh((("data", 2), ("tensor", 2)))
ODD = SpreadMLP(DATA, batch=5, width=7, hidden=5, layers=2)
CASES = {
    2: [
        *(replace(ODD, zero=zero) for zero in (0, 1, 3)),
        replace(ODD, mesh=TENSOR, microbatches=2),
        SpreadMLP(DATA, 3, batch=4, width=4, hidden=8, microbatches=2),
    ],
    3: [replace(ODD, mesh=Mesh((("data", 3),)), zero=3), replace(ODD, mesh=Mesh((("tensor", 3),)))],
    4: [replace(ODD, mesh=BOTH, zero=1), replace(ODD, mesh=BOTH, zero=3)],
}


def models(count: int) -> list[Case]:
    """A mixture whose tokens go to their experts, five of them; grouped heads over an axis in factors."""
    axes = {2: (("expert", 2),), 4: (("data", 2), ("expert", 2))}.get(count)
    if axes is None:
        return []
    mixture, mesh = small_step(MIXTURE.format(experts=5, k=2), batch=4), compiler.Mesh(axes)
    found = [case_of(mixture, sent_to_experts(mixture, mesh), mesh)]
    if count == 2:
        decision = partitioned(
            [grouped := small_step(GROUPED.format(heads=4, groups=2))], compiler.Mesh(DATA.axes), Wishes()
        )
        found.append(case_of(grouped, decision.graph, decision.mesh))
    if count == 4:
        grouped = small_step(GROUPED.format(heads=4, groups=2))
        pins = {"T": (), "batch": (), "H": ("tensor",), "G": ("tensor",)}
        decision = partitioned([grouped], compiler.Mesh((("tensor", 4),)), Wishes(pins))
        assert any(node.attrs.get("axis") == "tensor" for node in decision.graph), "a message along all factors"
        found.append(case_of(grouped, decision.graph, decision.mesh))
    return found


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_do_what_the_cluster_does(tmp_path: Path, count: int) -> None:
    cases = [*(case(what) for what in CASES[count]), *models(count)]
    found = run_processes(tmp_path, count, "oracles.spread:among_processes", cases=cases)
    for rank, wanted in enumerate(in_one_process(cases)):
        assert found[rank].keys() == wanted.keys()
        for name, tensor in wanted.items():
            if count == 2:
                assert torch.equal(found[rank][name], tensor), f"rank {rank}: {name}"
            else:
                torch.testing.assert_close(found[rank][name], tensor, rtol=1e-12, atol=1e-12, msg=f"{rank}: {name}")


def test_each_way_of_messages_may_have_a_group_of_its_own(tmp_path: Path) -> None:
    found = run_processes(tmp_path, 2, "oracles.spread:messages_that_cross")
    assert [one["found"].tolist() for one in found] == [[1.0] * 3, [0.0] * 3]
    assert [int(one["ways"]) for one in found] == [2, 2]


def test_ways_are_those_of_all_messages() -> None:
    build = PipedMLP(SpreadMLP(DATA, zero=1, layers=3, microbatches=3), 2, "1f1b").built().build
    ways = ways_of(build)
    received = {
        (i.axis, build.mesh.along(rank, i.axis)[1][i.source], rank, i.tag)
        for rank in range(build.mesh.size)
        for program in build.programs_of(rank).values()
        for i in program.instructions()
        if isinstance(i, Receive)
    }
    assert received and {*ways} == received
