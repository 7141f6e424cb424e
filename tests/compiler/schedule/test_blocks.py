"""Blocks of real steps: all time and memory is somebody's, and the backward's halves are where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.roofline import node_time
from partita.compiler.ir.types import Phase
from partita.compiler.schedule.blocks import blocks_of, chunk_prices, device_bytes
from partita.compiler.schedule.chunks import chunked, names_of
from partita.tools.specs import bind, step_of

MODELS = Path(__file__).resolve().parents[3] / "specs/models"
MACHINE, LINK = H100_NODES.machine, H100_NODES.levels[0].link


@pytest.mark.parametrize(
    ("name", "size"), [("gpt2", "small"), ("t5", "small"), ("llama3", None), ("lstm", None), ("mixer", None)]
)
def test_all_time_is_somebodys(name: str, size: str | None) -> None:
    step = step_of(bind(str(MODELS / f"{name}.partita"), (), size))
    chain = blocks_of(step, MACHINE, LINK)
    both = [node for node in step if node.phase in (Phase.FORWARD, Phase.BACKWARD)]
    assert sum(b.compute_s for b in chain) == pytest.approx(sum(node_time(n, MACHINE).seconds for n in both))
    assert chain[-1].transfer_s == 0
    assert all(block.transfer_s > 0 for block in chain[:-1])
    assert chain[0].input_s == 0, "nobody reads the first block's input gradient"
    prices = chunk_prices(chain, [(0, 2), (2, len(chain))])
    assert sum(p.forward + p.input + p.weight for p in prices) == pytest.approx(sum(b.compute_s for b in chain))


def test_gpt2_blocks() -> None:
    """Ends and 12 layers; a tied table is on both ends, its gradients and AdamW's two states with it."""
    step = step_of(bind(str(MODELS / "gpt2.partita"), (), "small"))
    chain = blocks_of(step, MACHINE, LINK)
    assert [b.name for b in chain] == ["wte", "wpe", *(f"blocks.{n}" for n in range(12)), "ln_f"]
    layer = chain[5]
    assert layer.static_bytes == 7_087_872 * 4 * 4  # parameters of a layer; with gradient, m and v
    assert layer.transfer_s * LINK.bandwidth_bytes_per_s == pytest.approx(1024 * 768 * 4)
    table = 50257 * 768 * 4
    assert all(b.static_bytes >= 3 * table for b in (chain[0], chain[-1]))
    assert 0.9 < layer.input_s / layer.weight_s < 1.3
    assert 0 < layer.held_bytes < 2 * layer.kept_bytes
    assert sum(device_bytes(chain, [(0, 7), (7, 15)], [0, 1])) == sum(b.static_bytes for b in chain)


@pytest.mark.parametrize(("name", "size"), [("gpt2", "small"), ("llama3", None), ("mixer", None)])
def test_a_gradient_is_summed_before_it_is_sent(name: str, size: str | None) -> None:
    """One tensor goes down over a border between layers, and one comes up: the sum where the stream is forked."""
    step = step_of(bind(str(MODELS / f"{name}.partita"), (), size))
    blocks = blocks_of(step, MACHINE, LINK)
    at = next(number for number, block in enumerate(blocks) if "." in block.name) + 1
    cut = chunked(step, names_of(step, [(0, at), (at, len(blocks))]), (0, 1))
    (down,), (up,) = cut.activations, cut.gradients
    assert len(down) == len(up) == 1
