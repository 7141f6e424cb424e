"""Documents of a row kept apart: packed, padded and one by one they give the same loss and the same gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from oracles.lowered import run_lowered
from oracles.values import Array, assert_close, leaf_values, run
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import LOSS
from partita.compiler.ir.types import DType, Node, TensorType
from partita.compiler.ops.build import Builder
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.documents import Documents
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.route import Route
from partita.compiler.passes.simplify import Simplify
from samples.spec_texts import model_spec, text_spec
from samples.zoo import DIMS

LENGTHS = (3, 1, 4, 2, 5)  # of the documents
PACKED = ((0, 2), (1, 3, 4))  # which documents lie in which row; the first has padding behind
WIDTH = 8

CONVOLUTION = """use std
model C : tokens[T] in V -> logits[T, V] {
  dim P = 3
  embed : Embedding[V, D]
  mix   : Linear[(D P), V]
  x = embed(tokens)
  return mix(window[T -> (T P)](x, before = 2))
}
"""


# What asks for a document as a whole; each makes y of x[T, D].
WHOLE = {
    "mean": "y = x + relu(up(mean[T](x)))",
    "sum": "y = x * sigmoid(sum[T](x * x))",
    "total": "y = x / (1 + sum[T, D](x * x))",
    "length": "y = x * length[T] + index[T]",
    "reverse": "y = x + 0.5 * reverse[T](x)",
    "last": "y = x * last[T](x)",
    "first": "y = x * x[T = 0]",
    "attention": "y = attn(x + up(mean[T](x)))",
    "twice": "a = x + mean[T](x * x)\n  y = a + relu(last[T](a))",
}


def whole(text: str) -> str:
    return f"""use std
model M : tokens[T] in V -> logits[T, V] {{
  dim H = 2
  embed : Embedding[V, D]
  up    : Linear[D, D]
  attn  : Attention[D, H](mask = causal, rope = rotary)
  head  : Linear[D, V]
  x = embed(tokens)
  {text}
  return head(y) + 0 * sum[D](up(x) + attn(x))
}}
"""


def forward(name: str, rows: int, width: int, ragged: bool = False) -> Graph:
    """The model with a loss that tells every output apart: the mean over tokens of Σ logits · probe."""
    tokens = "T" if ragged else None
    if name == "convolution" or name in WHOLE:
        text, model = (CONVOLUTION, "C") if name == "convolution" else (whole(WHOLE[name]), "M")
        dims = {"V": 7, "D": 4, "T": width, "batch": rows}
        graph, _ = elaborate_model(text_spec(text), model, dims=dims, dtype=DType.F64, ragged=tokens)
    else:
        file, model = name.split("/")
        dims = {**DIMS[file, model], "T": width, "batch": rows}
        dims |= {"N": 9} if "N" in dims and file != "bert" else {"M": 9} if file == "bert" else {}
        graph, _ = elaborate_model(model_spec(file), model, dims=dims, dtype=DType.F64, ragged=tokens)
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    b = Builder(builder)
    logits = graph.outputs["logits"]
    probe = b.input("probe", logits.dims, DType.F64)
    each = b.one("dot", logits, probe, over=logits.dims[2:])
    total = b.one("sum", each, over=logits.dims[:2])
    b.output("loss", b.one("mul", total, b.constant(1.0 / (rows * width), DType.F64)))
    return b.finish()


def gradients(graph: Graph, ragged: bool) -> Graph:
    apart = [Inline(), Inline(all=True, only=("rotary",)), Documents()] if ragged else []
    return run_passes(graph, [*apart, Inline(), Offsets(), Route(), Simplify(), Differentiate(), Simplify()], LOSS)


def documents(graph: Graph) -> list[dict[str, Array]]:
    """What each document brings for each input that has tokens."""
    random = np.random.default_rng(3)
    found: list[dict[str, Array]] = []
    for length in LENGTHS:
        shapes = {n.id: (n, [length, *(d.size or 0 for d in n.outs[0].dims[2:])]) for n in graph.nodes("input")}
        found.append({name: drawn(random, node, shape) for name, (node, shape) in shapes.items()})
    return found


def drawn(random: np.random.Generator, node: Node, shape: Sequence[int]) -> Array:
    out: TensorType = node.outs[0]
    below = getattr(node.attrs["below"], "size", None) or 2
    return random.normal(size=shape) if out.dtype.is_float else random.integers(0, below, shape)


def laid_out(parts: Sequence[Mapping[str, Array]], rows: Sequence[Sequence[int]], width: int) -> dict[str, Array]:
    """Documents in rows, the rest filled with what must not matter."""
    found: dict[str, Array] = {}
    for name, example in parts[0].items():
        shape = (len(rows), width, *example.shape[1:])
        found[name] = np.full(shape, 1, dtype=example.dtype)
        for row, members in enumerate(rows):
            joined = np.concatenate([parts[at][name] for at in members])
            found[name][row, : len(joined)] = joined
    segment, position, valid = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(3))
    for row, members in enumerate(rows):
        lengths = [LENGTHS[at] for at in members]
        spare = width - sum(lengths)
        places = [np.arange(length) for length in (*lengths, spare)]
        position[row] = np.concatenate(places)
        segment[row] = np.repeat(np.arange(len(places)), [len(one) for one in places])
        valid[row, : sum(lengths)] = 1
    weight = valid * valid.size / valid.sum()
    return {**found, "rows.segment": segment, "rows.position": position, "rows.weight": weight}


MODELS = (
    "gpt2/GPT2", "llama3/Llama31", "bloom/BLOOM", "lstm/LSTMLanguageModel", "bert/BERT",
    "mixtral/Mixtral", "gemma2/Gemma2", "lstm/GRULanguageModel", "mamba/Mamba", "convolution", *WHOLE,
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_packed_is_padded_is_one_by_one(name: str) -> None:
    """Loss and every gradient, float64; the packed ones as lowered and in two microbatches too."""
    packed = gradients(forward(name, len(PACKED), WIDTH, ragged=True), ragged=True)
    padded = gradients(forward(name, len(LENGTHS), max(LENGTHS), ragged=True), ragged=True)
    parts = documents(forward(name, 1, 2))
    weights = {node.id: leaf_values(packed)[node.id] for node in packed.nodes("parameter")}
    wanted: dict[str, Array] = {}
    for part, length in zip(parts, LENGTHS, strict=True):
        alone = gradients(forward(name, 1, length), ragged=False)
        given = {key: value[None] for key, value in part.items()}
        for key, value in run(alone, {**leaf_values(alone), **weights, **given}).items():
            wanted[key] = wanted.get(key, 0) + value * (length / sum(LENGTHS))
    wanted = {key: value for key, value in wanted.items() if key == "loss" or key.startswith("grad/")}
    rows = {"packed": laid_out(parts, PACKED, WIDTH), "padded": laid_out(parts, [[at] for at in range(5)], 5)}
    for graph, given in ((packed, rows["packed"]), (padded, rows["padded"])):
        assert_close(run(graph, {**leaf_values(graph), **weights, **given}), wanted, 1e-10)
    values = {**leaf_values(packed), **weights, **rows["packed"]}
    assert_close(run_lowered(packed, values)[0], wanted, 1e-10)
    assert_close(run(Microbatch(2)(packed), values), wanted, 1e-10)


def test_attention_stays_the_fused_kernel() -> None:
    """Told of documents by number, and its body, told the same, means the same."""
    packed = gradients(forward("llama3/Llama3", 2, 8), ragged=True)
    assert len(packed.nodes("attention")) == len(packed.nodes("attention_backward")) == 2
    kept = run_passes(forward("gpt2/GPT2", 2, 8), [Inline(), Documents()], LOSS)
    whole = Inline(all=True)(kept)
    assert not whole.nodes("attention")
    values = {**leaf_values(kept), "rows.segment": np.array([[0] * 3 + [1] * 5, [0] * 8])}
    assert_close(run(whole, values), run(kept, values), 1e-12)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("y = embed(tokens)\n  return head(y + gelu(sum[T](y)))", "what positions or whole documents give"),
        ("y = embed(tokens)[T -> (A B)][(B A) -> T]\n  return head(y)", "pieces"),
        ("y = embed(tokens)\n  return head(y + max[T](y))", "whatever document"),
    ],
)
def test_what_mixes_documents_is_refused(text: str, why: str) -> None:
    spec = text_spec(f"""use std
model M : tokens[T] in V -> logits[T, V] {{
  dim A = 2, B = 4
  embed : Embedding[V, D]
  head  : Linear[D, V]
  {text}
}}
""")
    graph, _ = elaborate_model(spec, "M", dims={"V": 7, "D": 4, "T": 8, "batch": 2}, dtype=DType.F64)
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    b = Builder(builder)
    logits = graph.outputs["logits"]
    b.output("loss", b.one("mul", b.one("sum", logits, over=logits.dims), b.constant(1 / 112, DType.F64)))
    with pytest.raises(SpecError) as error:
        run_passes(b.finish(), [Inline(), Documents()], LOSS)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E0915"
    assert why in diagnostic.title
