"""What the named choices keep of a transformer's layer."""

from __future__ import annotations

from functools import cache

import pytest
from partita.compiler.base.span import Source
from partita.compiler.cost.memory import kept_for_backward
from partita.compiler.devices import partitioned
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.layout import Mesh
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import Phase
from partita.compiler.partition.choices import Wishes
from partita.compiler.passes import Pass, run_passes
from partita.compiler.passes.localize import localize
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.pipeline import step_passes
from partita.compiler.schedule.forms import build, parse_form
from partita.compiler.schedule.place import in_flight

S, B, H, A = 256, 2, 512, 8
GPT3 = (2048, 1, 12288, 96)  # s, b, h, a of GPT-3 175B with microbatches of one row
SPEC = """use std

block GBlock[D, H, F] : x[T, D] -> [T, D] {
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true, drop = 0.1)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)
  h = x + dropout(attn(ln1(x)), 0.1)
  return h + dropout(mlp(ln2(h)), 0.1)
}

model GPT : tokens[T] in V -> logits[T, V] {
  sizes {
           L  D    H    F        V
    small  3  @H  @A  @F  512
  }
  wte    : Embedding[V, D]
  blocks : chain L of GBlock[D, H, F]
  return dot[D](blocks(wte(tokens)), wte.table)
}

train run {
  model = GPT.small
  dims  = [T = @S]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = @B
  steps     = 1
  optimizer = sgd
  lr        = 1e-2
  precision = mixed(compute = bf16)
}
"""
TOKENS = S * B * H


def written(s: int, b: int, h: int, a: int) -> str:
    """The spec of a GPT of three layers."""
    text = SPEC
    for mark, size in {"@S": s, "@B": b, "@H": h, "@A": a, "@F": 4 * h}.items():
        text = text.replace(mark, str(size))
    return text


@cache
def stages(sizes: tuple[int, int, int, int] = (S, B, H, A)) -> tuple[Graph, list[Pass]]:
    """The graph that the pass is given, and the passes behind it; the loss apart from the head, to be cut along V."""
    spec, found = load(Source("run.partita", written(*sizes)))
    assert spec is not None, found
    recipe = load_recipe(spec, "run")
    loss, _ = elaborate_loss(spec, recipe)
    passes = step_passes(spec, recipe, fuse_loss=False)
    at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
    return run_passes(loss, passes[:at], LOSS), passes[at + 1 :]


def before() -> Graph:
    return stages()[0]


def kept(transform: Rematerialize) -> int:
    """Bytes that the middle layer keeps, each statistic of a norm among them."""
    graph = run_passes(before(), [transform], GRADIENT)
    return sum(size for path, size in kept_for_backward(graph).items() if f"{path}.".startswith("blocks.1."))


def test_full_keeps_a_layers_input() -> None:
    assert kept(Rematerialize("none", "full")) == 2 * TOKENS


def test_selective_keeps_34_bytes_a_token_and_channel() -> None:
    """Korthikanti et al. 2022, table 2: s b h 34, where 5 a s / h is made again; to it the norms' statistics and the
    dropout's two scalars."""
    statistics = 2 * 2 * 4 * S * B + 2 * 2
    assert kept(Rematerialize("none", "selective")) == 34 * TOKENS + statistics
    scores = 5 * A * S * S * B + S * S  # with the causal mask
    assert kept(Rematerialize("none")) == 34 * TOKENS + statistics + scores


def test_paths_keep_nothing_of_the_instances_that_they_name() -> None:
    graph = run_passes(before(), [Rematerialize("none", paths=("blocks.*.mlp*",))], GRADIENT)
    assert not [path for path in kept_for_backward(graph) if ".mlp" in path]
    assert [path for path in kept_for_backward(graph) if ".attn" in path]


def kept_by_one_of(tensor: int, sequence: bool, layers: str, sizes: tuple[int, int, int, int] = (S, B, H, A)) -> int:
    """Bytes that one device keeps of the middle layer. That D stays whole is the paper's: it need not."""
    pins = {"H": ("tensor",), "F": ("tensor",), "V": ("tensor",), "D": (), "T": ("tensor",) if sequence else ()}
    mesh = Mesh((("tensor", tensor),))
    graph, behind = stages(sizes)
    step = run_passes(graph, [Rematerialize("none", layers), *behind], GRADIENT)
    laid = partitioned([step], mesh, Wishes(pins)).graph
    local = localize(laid, mesh, next(iter(mesh.coordinates())))
    return sum(size for path, size in kept_for_backward(local).items() if f"{path}.".startswith("blocks.1."))


@pytest.mark.parametrize("tensor", [2, 4])
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(("layers", "scores"), [("none", 5), ("selective", 0), ("full", None)])
def test_along_a_tensor_axis(layers: str, scores: int | None, sequence: bool, tensor: int) -> None:
    """The same table's tensor parallelism, s b h (10 + 24 / t + 5 a s / (h t)), and with the sequence cut between the
    halves of a block, s b h (34 / t + 5 a s / (h t)): what is gathered before a contraction is gathered again in the
    backward. Selective without the last term; full recomputation keeps an input, s b h 2, or a device's part of it.
    Beside that, within 2 %, the norms' statistics and the causal mask, which is cut where attention is cut by rows."""
    found = kept_by_one_of(tensor, sequence, layers)
    parts = tensor if sequence else 1
    if scores is None:
        assert found == pytest.approx(2 * TOKENS // parts, rel=0.02)
        return
    formula = 10 * TOKENS // parts + (24 * TOKENS + scores * A * S * S * B) // tensor
    assert found == pytest.approx(formula, rel=0.02)
    mask = S * S if scores else 0
    assert found - formula - 2 * 2 * 4 * S * B // parts in (mask, mask // parts)


@pytest.mark.parametrize(("sequence", "layers", "gib"), [(False, "none", 66.84), (True, "selective", 12.35)])
def test_a_device_of_gpt_3(sequence: bool, layers: str, gib: float) -> None:
    """GPT-3 175B, tensor 8, pipe 8, interleave 3, microbatches of a row: the first device's activations, of the same
    paper's formula s b h L (10 + 24 / t + 5 a s / (h t)) (1 + (p - 1) / (p m)) and s b h L 34 / t with that factor."""
    pipe, interleave, blocks = 8, 3, 96
    schedule = build(parse_form(f"interleaved({interleave})"), pipe, 8 * pipe)
    most = max(sum(chunks) for chunks in in_flight(schedule)[0])
    assert most == pipe * interleave + pipe - 1  # p m (1 + (p - 1) / (p m)) chunks
    kept = kept_by_one_of(8, sequence, layers, GPT3)
    assert most * blocks // (pipe * interleave) * kept / (1 << 30) == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize("layers", ["full", "selective"])
def test_what_is_made_again_is_made_once(layers: str) -> None:
    graph = run_passes(before(), [Rematerialize("none", layers)], GRADIENT)
    again = [node for node in graph if node.id.startswith("again/")]
    assert again and all(node.phase is Phase.BACKWARD for node in again)
    assert len({node.id.removeprefix("again/") for node in again}) == len(again)
    assert not [node for node in again if not node.layer]
