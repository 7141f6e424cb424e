"""A whole GPT-2 step, from a spec to what it leaves in the store, against PyTorch's autograd and AdamW in float64.

And the shape of what is generated: one forward and one backward module for all layers, readable lines, nothing held.
"""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Mapping
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from oracles.lowered import doubled
from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.module import module
from partita.compiler.pipeline import evaluate_graph, step_graph
from partita.runtime.execute import Executable
from partita.runtime.folder import executable
from partita.runtime.program import Build, Run

LAYERS, HEADS, VOCABULARY, TIME, ROWS = 3, 2, 50, 8, 4
GPT = """use std

block Block[D, H, F] : x[T, D] -> [T, D] {
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)
  h = x + attn(ln1(x))
  return h + mlp(ln2(h))
}

model GPT : tokens[T] in V -> logits[T, V] {
  sizes {
          L  D   H  F   V   N
    tiny  3  16  2  64  50  8
  }
  wte    : Embedding[V, D]
  wpe    : Embedding[N, D]
  blocks : chain L of Block[D, H, F]
  ln_f   : LayerNorm[D]
  x = wte(tokens) + wpe(index[T])
  return dot[D](ln_f(blocks(x)), wte.table)
}

train tiny {
  model = GPT.tiny
  dims  = [T = 8]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss         = mean(cross_entropy[V](logits, target))
  batch        = 4
  microbatches = MICROBATCHES
  steps        = 3
  optimizer    = adamw(betas = (0.9, 0.95), decay = 0.1)
  lr           = 1e-2
  clip         = 0.5
}
"""
Tensors = dict[str, torch.Tensor]


@cache
def graphs(microbatches: int) -> tuple[Graph, Graph]:
    spec, found = load(Source("tiny.partita", GPT.replace("MICROBATCHES", str(microbatches))))
    assert spec is not None, found
    recipe = load_recipe(spec, "tiny")
    return doubled(step_graph(spec, recipe)), doubled(evaluate_graph(spec, recipe))


@cache
def compiled(microbatches: int) -> tuple[Build, dict[str, str]]:
    step, evaluate = graphs(microbatches)
    return compile_graphs({"step": step, "evaluate": evaluate}, {}, {})


def loaded(microbatches: int) -> Executable:
    return executable(*compiled(microbatches))


def stored(build: Build) -> Tensors:
    draw = torch.Generator().manual_seed(0)
    store = {p.name: torch.randn(p.shape, generator=draw, dtype=torch.float64) * 0.3 for p in build.parameters}
    return store | {s.name: torch.zeros(s.shape, dtype=torch.float64) for s in build.states}


def batch() -> Tensors:
    draw = torch.Generator().manual_seed(1)
    return {name: torch.randint(0, VOCABULARY, (ROWS, TIME), generator=draw) for name in ("tokens", "target")}


def parts(data: Tensors, count: int) -> list[Tensors]:
    return [{name: rows.chunk(count)[i] for name, rows in data.items()} for i in range(count)]


def reference_loss(p: Mapping[str, torch.Tensor], data: Tensors) -> torch.Tensor:
    """GPT-2 in plain PyTorch."""
    x = p["wte.table"][data["tokens"]] + p["wpe.table"][:TIME]
    width = x.shape[-1]
    for at in range(LAYERS):
        w = {name.removeprefix(f"blocks.{at}."): t for name, t in p.items() if name.startswith(f"blocks.{at}.")}
        n = F.layer_norm(x, (width,), w["ln1.gain"], w["ln1.b"])
        q, k, v = (n @ w[f"attn.{c}.w"].reshape(width, -1) + w[f"attn.{c}.b"].reshape(-1) for c in "qkv")
        q, k, v = (t.view(ROWS, TIME, HEADS, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(ROWS, TIME, -1)
        h = x + y @ w["attn.o.w"].reshape(-1, width) + w["attn.o.b"]
        n = F.layer_norm(h, (width,), w["ln2.gain"], w["ln2.b"])
        up = F.gelu(n @ w["mlp.up.w"] + w["mlp.up.b"], approximate="tanh")
        x = h + up @ w["mlp.down.w"] + w["mlp.down.b"]
    x = F.layer_norm(x, (width,), p["ln_f.gain"], p["ln_f.b"])
    return F.cross_entropy((x @ p["wte.table"].t()).flatten(0, 1), data["target"].flatten())


@pytest.mark.parametrize("microbatches", [1, 2])
def test_three_steps_are_those_of_torch(microbatches: int) -> None:
    ours = loaded(microbatches)
    store, data = stored(ours.build), batch()
    theirs = {p.name: store[p.name].clone().requires_grad_() for p in ours.build.parameters}
    optimizer = torch.optim.AdamW(theirs.values(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(3):
        out = ours.run("step", store, parts(data, microbatches), step=step)
        loss = reference_loss(theirs, data)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(theirs.values()), 0.5)
        optimizer.step()
        assert abs(float(out["loss"]) - float(loss.detach())) < 1e-10
    # A key's bias has no gradient but rounding, which Adam blows up to whole steps.
    for name in (n for n in theirs if not n.endswith("attn.k.b")):
        torch.testing.assert_close(store[name], theirs[name].detach(), rtol=1e-7, atol=1e-8)


def test_a_head_of_its_own_adds_into_the_sum_of_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing but the update reads that sum: two microbatches leave what one leaves."""
    own = GPT.replace("  x = wte(tokens)", "  head : Linear[D, V](bias = false)\n  x = wte(tokens)")
    own = own.replace("dot[D](ln_f(blocks(x)), wte.table)", "head(ln_f(blocks(x)))")
    own = own.replace("  clip         = 0.5\n", "  log { grad_norm = false }\n")
    monkeypatch.setattr(pipeline, "ROWS_AT_ONCE", {"cpu": 4})
    left: list[Tensors] = []
    for microbatches in (1, 2):
        spec, found = load(Source("own.partita", own.replace("MICROBATCHES", str(microbatches))))
        assert spec is not None, found
        graph = doubled(step_graph(spec, load_recipe(spec, "tiny")))
        assert graph.nodes("linear_cross_entropy")
        build, sources = compile_graphs({"step": graph}, {}, {})
        store = stored(build)
        executable(build, sources).run("step", store, parts(batch(), microbatches))
        left.append(store)
    for name in left[0]:
        torch.testing.assert_close(left[1][name], left[0][name], rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_autograd() -> None:
    step, _ = graphs(1)
    build, sources = compile_graphs({"step": gradients_of(step)}, {}, {})
    store, data = stored(build), batch()
    theirs = {p.name: store[p.name].clone().requires_grad_() for p in build.parameters}
    out = executable(build, sources).run("step", store, [data])
    reference_loss(theirs, data).backward()
    for name, tensor in theirs.items():
        assert tensor.grad is not None
        error = (out[f"dump/{name}"] - tensor.grad).norm() / max(float(tensor.grad.norm()), 1e-3)
        assert float(error) < 1e-10, f"{name}: {float(error)}"


def gradients_of(step: Graph) -> Graph:
    """The step, asked for what its AdamW nodes read before clipping."""
    builder = GraphBuilder(step.name)
    builder.extend(step)
    for node in step.nodes("adamw"):
        clipped = step[node.uses[1].node]
        gradient = next(u for u in clipped.uses if u.dims) if clipped.op == "mul" else node.uses[1]
        builder.output(f"dump/{node.uses[0].node}", gradient)
    return builder.finish()


def test_all_layers_share_their_modules() -> None:
    build, sources = compiled(1)
    program = build.programs["step"]
    called = [i.module for i in program.microbatch if isinstance(i, Run)]
    assert called.count("blocks_forward") == LAYERS
    assert called.count("blocks_backward") == LAYERS
    assert [i.module for i in program.update if isinstance(i, Run)] == ["update", "update_2"]
    assert sources["update_2"].count("_fused_adamw_") == 1


def test_a_module_reads_like_the_spec() -> None:
    text = compiled(1)[1]["blocks_forward"]
    body = text[text.index("def run(args):") :]
    assert "args.clear()" in body
    assert re.search(r"^ +h = .*# tiny.partita:8 blocks\.\*\.h$", body, re.M)
    for line in body[body.index("args.clear()") :].splitlines()[1:]:
        if re.search(r"\w\(.*\)", line):
            assert re.search(r"# \S+\.partita:\d+ \S+$", line), line


def test_the_loss_keeps_one_buffer_of_logits() -> None:
    sources = compiled(1)[1]
    texts = "".join(text for name, text in sources.items() if not name.startswith("evaluate"))
    assert "_log_softmax.out(" in texts
    assert "_log_softmax.default" not in texts
    assert "embedding_dense_backward" not in texts


def test_a_module_lets_go_of_its_arguments() -> None:
    ours = loaded(1)
    program = ours.build.programs["step"]
    run = next(i for i in program.microbatch if isinstance(i, Run) and i.module == "blocks_backward")
    seen: list[weakref.ref[torch.Tensor]] = []
    module_ = ours.modules["blocks_backward"]

    def watched(args: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(weakref.ref(args[run.inputs.index(name)]) for name in run.frees)
        results = module_(args)
        assert not args
        return results

    store = stored(ours.build)
    Executable(ours.build, {**ours.modules, "blocks_backward": watched}, ours.device).run("step", store, [batch()])
    gc.collect()
    assert seen
    assert all(ref() is None for ref in seen)


def test_evaluate_gives_the_loss_and_writes_nothing() -> None:
    ours = loaded(1)
    store = stored(ours.build)
    before = {name: tensor.clone() for name, tensor in store.items()}
    out = ours.run("evaluate", store, [batch()])
    assert abs(float(out["loss"]) - float(reference_loss(store, batch()))) < 1e-12
    assert all(torch.equal(store[name], tensor) for name, tensor in before.items())


def test_the_same_graph_is_a_module_with_autograd() -> None:
    _, evaluate = graphs(1)
    model = module(evaluate)
    theirs = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    model(**batch()).backward()
    reference_loss(theirs, batch()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)


def test_a_named_value_is_dumped() -> None:
    step, _ = graphs(1)
    build, sources = compile_graphs({"step": step}, {}, {}, dump=["blocks.1.h"])
    out = executable(build, sources).run("step", stored(build), [batch()])
    assert out["dump/blocks.1.h"].shape == (ROWS, TIME, 16)
