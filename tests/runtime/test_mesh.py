"""Real processes over gloo do what the cluster in one process does: bit for bit for two, to rounding for more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles.processes import run_processes
from oracles.spread import case, in_one_process
from partita.runtime.layout import Mesh
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


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_do_what_the_cluster_does(tmp_path: Path, count: int) -> None:
    cases = [case(what) for what in CASES[count]]
    found = run_processes(tmp_path, count, "oracles.spread:among_processes", cases=cases)
    for rank, wanted in enumerate(in_one_process(cases)):
        assert found[rank].keys() == wanted.keys()
        for name, tensor in wanted.items():
            if count == 2:
                assert torch.equal(found[rank][name], tensor), f"rank {rank}: {name}"
            else:
                torch.testing.assert_close(found[rank][name], tensor, rtol=1e-12, atol=1e-12, msg=f"{rank}: {name}")
