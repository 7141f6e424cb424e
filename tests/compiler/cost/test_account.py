"""What a device holds: the figures of ZeRO's paper, from layouts alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from partita.compiler.cost.account import Account, account
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.types import Dim, DType, Phase
from partita.compiler.ops.build import Builder
from partita.compiler.partition.choices import Wishes
from partita.compiler.partition.decide import decide
from partita.compiler.partition.solve import Solution

_LINES = (Path(__file__).parent / "zero_memory.csv").read_text().splitlines()
CELLS = list(csv.DictReader(line for line in _LINES if not line.startswith("#")))


def mixed_step(parameters: int) -> Graph:
    """One matrix trained by Adam in mixed precision: float32 master and moments, float16 copy and gradient."""
    d, f, batch = Dim("D", 1024 * 1000), Dim("F", parameters // (1024 * 1000)), Dim("batch", 1024 * 1024)
    b = Builder(GraphBuilder("mixed"))
    w = b.parameter("w", (d, f), DType.F32)
    m, v = (b.state(f"adamw.{role}/w", (d, f), DType.F32, of="w", role=role) for role in ("m", "v"))
    with b.within(phase=Phase.PREPARE):
        low = b.one("cast", w, to=DType.F16)
    x = b.input("x", (batch, d), DType.F16)
    loss = b.one("sum", b.one("dot", x, low, over=(d,)), over=(batch, f))
    with b.within(phase=Phase.BACKWARD):
        ones = b.constant(1.0, DType.F16, (batch, f))
        summed = b.one("accumulate", b.one("dot", x, ones, over=(batch,)))
        shown = b.one("accumulate", loss)
    with b.within(phase=Phase.UPDATE):
        wide = b.one("cast", summed, to=DType.F32)
        rate, step = b.constant(0.1, DType.F32), b.constant(1.0, DType.F32)
        for target, value in zip(
            ("w", "adamw.m/w", "adamw.v/w"),
            b("adamw", w, wide, m, v, step, rate, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0),
            strict=True,
        ):
            b("assign", value, target=target)
    b.output("loss", shown)
    return b.finish()


def decided(cell: dict[str, str]) -> tuple[Account, Solution]:
    mesh = Mesh((("data", int(cell["dp_degree"])),))
    wishes = Wishes({"batch": ("data",)}, zero=int(cell["zero_stage"]))
    found = decide(mixed_step(int(cell["params"])), mesh, H100_NODES, wishes)
    return account(found.graph, mesh), found.solution


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c['model']}/{c['dp_degree']}/{c['zero_stage']}")
def test_zero_memory_is_the_papers(cell: dict[str, str]) -> None:
    found, _ = decided(cell)
    total = found.parameter_bytes + found.gradient_bytes + found.state_bytes
    assert total / 1e9 == pytest.approx(float(cell["formula_GB"]), rel=0.01)
