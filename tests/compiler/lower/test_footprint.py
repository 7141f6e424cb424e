"""The peak that is foretold is the peak that the allocator's events show, on whole steps; and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from partita.compiler.base.span import Source
from partita.compiler.cost.memory import Owner, step_memory
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType
from partita.compiler.lower.build import compile_graphs, graph_footprint, occupied
from partita.compiler.lower.library import Library
from partita.compiler.ops.build import Builder
from partita.compiler.pipeline import step_graph
from partita.runtime.folder import executable
from partita.runtime.memory import measure_peak
from partita.runtime.program import Program
from partita.runtime.state import initial_store

SPEC = """use std

block GBlock[D, H, F](drop = 0.0) : x[T, D] -> [T, D] {
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true, drop = drop)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)
  h = x + dropout(attn(ln1(x)), drop)
  return h + dropout(mlp(ln2(h)), drop)
}

model GPT(drop = 0.0) : tokens[T] in V -> logits[T, V] {
  sizes {
           L  D    H  F    V     N
    small  2  64   2  256  500   256
    wide   3  128  4  512  300   256
    words  2  64   4  128  3000  256
  }
  wte    : Embedding[V, D]
  wpe    : Embedding[N, D]
  blocks : chain L of GBlock[D, H, F](drop)
  ln_f   : LayerNorm[D]
  x = dropout(wte(tokens) + wpe(index[T]), drop)
  return dot[D](ln_f(blocks(x)), wte.table)
}

block LBlock[D, H, G, F] : x[T, D] -> [T, D] {
  norm1 : RMSNorm[D]
  attn  : Attention[D, H, G](mask = causal, rope = rotary)
  norm2 : RMSNorm[D]
  mlp   : GLU[D, F]
  h = x + attn(norm1(x))
  return h + mlp(norm2(h))
}

model Llama : tokens[T] in V -> logits[T, V] {
  sizes {
           L  D    H  G  F    V
    small  2  64   4  2  192  500
    wide   3  128  8  2  320  800
  }
  embed  : Embedding[V, D]
  layers : chain L of LBlock[D, H, G, F]
  norm   : RMSNorm[D]
  head   : Linear[D, V](bias = false)
  return head(norm(layers(embed(tokens))))
}
"""
ADAMW = "adamw(betas = (0.9, 0.95), decay = 0.1)"


@dataclass(frozen=True)
class Case:
    """A recipe over the spec above."""

    model: str
    length: int
    batch: int
    microbatches: int = 1
    optimizer: str = ADAMW
    more: str = ""

    def text(self) -> str:
        return f"""{SPEC}
train run {{
  model = {self.model}
  dims  = [T = {self.length}]
  data {{ read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }}
  loss         = mean(cross_entropy[V](logits, target))
  batch        = {self.batch}
  microbatches = {self.microbatches}
  steps        = 2
  optimizer    = {self.optimizer}
  lr           = 1e-2
  {self.more}
}}
"""


CASES = [
    Case("GPT.small", 64, 4),
    Case("GPT.small", 64, 8, 2, more="clip = 1.0"),
    Case("GPT.wide", 128, 8, 4, "sgd(momentum = 0.9)", "clip = 1.0"),
    Case("GPT.words", 32, 2, optimizer="sgd"),
    Case("GPT.words", 32, 2, optimizer="adam", more="clip = 1.0"),
    Case("GPT.small(drop = 0.1)", 64, 4),
    Case("GPT.wide(drop = 0.1)", 96, 4, 2, "adam", "clip = 0.5"),
    Case("Llama.small", 200, 2, optimizer="sgd"),
    Case("Llama.wide", 64, 2, optimizer="adam"),
    Case("GPT.small", 64, 4, more="precision = f64"),
    Case("Llama.small", 64, 8, 2, "sgd", "precision = f64"),
    Case("GPT.small", 64, 4, more="precision = mixed(compute = bf16)"),
    Case("GPT.wide", 128, 8, 4, ADAMW, "precision = mixed(compute = bf16)\n  clip = 1.0"),
    Case("GPT.words", 32, 2, optimizer="sgd", more="precision = mixed(compute = bf16)"),
    Case("Llama.wide", 128, 8, 4, more="precision = mixed(compute = bf16)"),
    Case("Llama.small", 200, 2, more='precision { compute = bf16, "layers.0.*" = f32 }'),
]
NAMES = [f"{c.model}-{c.length}x{c.batch}/{c.microbatches}-{c.optimizer[:5]}-{c.more}" for c in CASES]


@cache
def step_of(case: Case) -> Graph:
    spec, found = load(Source("run.partita", case.text()))
    assert spec is not None, found
    return step_graph(spec, load_recipe(spec, "run"))


def rows(program: Program) -> list[dict[str, torch.Tensor]]:
    """Ids for every microbatch."""
    given = [i for i in program.inputs if i.source == "data"]
    return [{i.name: torch.randint(0, i.below or 2, i.shape) for i in given} for _ in range(program.microbatches)]


def measured(graph: Graph) -> tuple[float, int]:
    """What the build foretells and what its second step took."""
    build, sources = compile_graphs({"step": graph}, {}, {})
    runnable, store, data = executable(build, sources), initial_store(build, 0), rows(build.programs["step"])
    runnable.run("step", store, data)
    held = [*store.values(), *(tensor for part in data for tensor in part.values())]
    _, peak = measure_peak(lambda: runnable.run("step", store, data, step=1), held, torch.device("cpu"))
    return build.predictions["peak_bytes"], peak


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_peak_is_what_was_foretold(case: Case) -> None:
    graph = step_of(case)
    foretold, peak = measured(graph)
    # To the byte but for oneDNN's scratch of low products, which hangs on the processor and the number of threads.
    low = "bf16" in case.more
    assert foretold == pytest.approx(peak, rel=0.05 if low else 1e-3)
    # And from the graph alone, which knows neither instructions nor what kernels need inside.
    margin = 0.11 if low and "sgd" in case.optimizer else 0.05  # too high at the cast of the head's gradient
    assert step_memory(graph, threads=torch.get_num_threads()).peak_bytes == pytest.approx(peak, rel=margin)


# ---- what it is made of


def test_the_peak_has_owners_and_a_place() -> None:
    found = graph_footprint(step_of(CASES[0]))
    memory = found.memory
    parameters = 4 * (500 * 64 + 256 * 64 + 2 * (4 * 64 * 64 + 2 * 64 * 256 + 9 * 64 + 256) + 2 * 64)
    assert memory.of(Owner.PARAMETER) == parameters
    assert memory.of(Owner.STATE) == 2 * parameters
    assert sum(share.bytes for share in memory.shares) == memory.peak_bytes == max(s.peak_bytes for s in found.levels)
    assert memory.at.startswith("run.partita:24 ")
    scores = {share.path: share.bytes for share in memory.shares if share.owner is Owner.ACTIVATION}
    wide = [f"linear.partita:6 blocks.{layer}.mlp.up.add" for layer in (0, 1)]
    assert [scores[path] for path in wide] == [4 * 4 * 64 * 256] * 2


@pytest.mark.parametrize("case", [CASES[0], CASES[2]])
def test_microbatches_that_begin_alike_are_walked_once(case: Case) -> None:
    graph = step_of(replace(case, batch=16, microbatches=16))
    assert occupied("step", graph, Library("cpu")).peak_bytes == graph_footprint(graph).memory.peak_bytes


def test_what_a_step_leaves_is_what_it_found_and_its_outputs() -> None:
    found = graph_footprint(step_of(CASES[1]))
    store = found.memory.of(Owner.PARAMETER) + found.memory.of(Owner.STATE)
    data = 2 * 2 * 8 * 4 * 64
    assert store + data <= found.levels[-1].left_bytes <= store + data + 64  # scalars
    course = [level.what for level in found.levels if level.phase == "microbatch"]
    assert course[: len(course) // 2] == course[len(course) // 2 :] and course.count("blocks_forward") == 4


def chain(length: int) -> Graph:
    """exp(exp(…x)): the input, which nobody may write over, and one value."""
    b = Builder(GraphBuilder("chain"))
    x = b.input("x", (Dim("D", 100),), DType.F32)
    for _ in range(length):
        x = b.one("exp", x)
    b.output("y", x)
    return b.finish()


@pytest.mark.parametrize(("device", "peak"), [("cpu", 800), ("cuda", 1024)])
def test_sizes_are_rounded_as_the_allocator_rounds(device: str, peak: int) -> None:
    assert graph_footprint(chain(5), device).memory.peak_bytes == peak


def test_more_threads_take_more_workspace() -> None:
    graph = step_of(CASES[7])
    levels = [{level.what: level.peak_bytes for level in graph_footprint(graph, threads=n).levels} for n in (1, 64)]
    assert levels[0]["layers_forward"] < levels[1]["layers_forward"]
    assert levels[0]["update"] == levels[1]["update"]
