"""FLOPs and parameters of GPT-2 124M without biases, part by part, against the published figures: exactly."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from partita.compiler.cost.flops import by_path, by_phase, parameter_count, tokens, within, works
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import Phase
from partita.compiler.ops.shapes import elements
from partita.compiler.passes.differentiate import Differentiate
from samples.small_gpt import Sizes, small_gpt

GPT2 = Sizes(1, tokens=1024, layers=12, width=768, heads=12, hidden=3072, vocabulary=50257, intercepts=False)


def published(group: str) -> dict[str, int]:
    lines = (Path(__file__).parent / "gpt2_124m_flops.csv").read_text().splitlines()
    rows = csv.reader(line for line in lines if not line.startswith("#"))
    return {item: int(value) for name, item, value in rows if name == group}


@pytest.fixture(scope="module")
def forward() -> Graph:
    return small_gpt(sizes=GPT2)


@pytest.fixture(scope="module")
def step(forward: Graph) -> Graph:
    return Differentiate()(forward)


def test_parameters_part_by_part(forward: Graph) -> None:
    def count(*paths: str) -> int:
        inside = forward.nodes("parameter", lambda n: any(n.id.startswith(f"{path}.") for path in paths))
        return sum(elements(node.outs[0].dims) for node in inside)

    block = "blocks.0"
    found = {
        "position embedding": count("wpe"),
        "token embedding": count("wte"),
        "attention ln": count(f"{block}.ln1"),
        "attention kqv": count(*(f"{block}.attn.{name}" for name in "qkv")),
        "attention proj": count(f"{block}.attn.o"),
        "attention": count(f"{block}.ln1", f"{block}.attn"),
        "mlp ln": count(f"{block}.ln2"),
        "mlp ffw": count(f"{block}.mlp.up"),
        "mlp proj": count(f"{block}.mlp.down"),
        "mlp": count(f"{block}.ln2", f"{block}.mlp"),
        "block": count(block),
        "transformer": count("blocks"),
        "ln_f": count("ln_f"),
        "dense (tied)": 0,
        "total": parameter_count(forward),
    }
    assert found == published("params")


def test_forward_flops_part_by_part(forward: Graph, step: Graph) -> None:
    parts = by_path(forward)

    def count(path: str) -> int:
        return within(parts, path, Phase.FORWARD).model_flops

    block = "blocks.0"
    inside = sum(w.model_flops for n, w in works(forward) if n.op == "attention" and n.path == f"{block}.attn")
    total, backward = count(""), by_phase(step)[Phase.BACKWARD].model_flops
    found = {
        "attention kqv": sum(count(f"{block}.attn.{name}") for name in "qkv"),
        "attention scores": inside // 2,
        "attention reduce": inside // 2,
        "attention proj": count(f"{block}.attn.o"),
        "attention": count(f"{block}.attn"),
        "mlp ffw1": count(f"{block}.mlp.up"),
        "mlp ffw2": count(f"{block}.mlp.down"),
        "mlp": count(f"{block}.mlp"),
        "block": count(block),
        "transformer": count("blocks"),
        "dense (logits)": total - count("blocks"),
        "forward total": total,
        "backward total": backward,
        "total": total + backward,
    }
    expected = published("forward FLOPs per 1024-token sequence")
    palm = expected.pop("PaLM formula 6N+12LHQT total")
    assert found == expected
    trained = parameter_count(forward) - 1024 * 768  # the paper's formula does not count positions
    assert palm == 1024 * (6 * trained + 12 * 12 * 12 * 64 * 1024)


def test_phases_and_paths_agree_and_microbatches_multiply(step: Graph) -> None:
    parts = by_path(step)
    for phase, work in by_phase(step).items():
        assert within(parts, "", phase) == work
    assert tokens(step) == 1024
    forward = by_phase(step)[Phase.FORWARD]
    assert forward.flops > forward.model_flops > 0 and forward.bytes_moved > 0
