"""A recipe's loss: its value against numpy, its columns, its scale; functions applied by name for passes."""

from __future__ import annotations

import numpy as np
import pytest
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.elaborate.apply import Functions
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.interpret import interpret
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import LOSS
from partita.compiler.ir.types import Dim, DType
from partita.compiler.ir.verify import verify
from partita.compiler.ops.build import Builder
from partita.compiler.ops.check import check_node
from samples.spec_texts import text_spec

TEXT = """use std

model Bigram : tokens[T] in V -> logits[T, V], size[T] {{
  sizes {{
       V
    s  5
  }}
  table : Embedding[V, V]
  tap scores = table(tokens)
  return scores, mean[V](scores)
}}

train t {{
  model     = Bigram.s
  dims      = [T = 3]
  data {{ read = text("x.txt"), rows = chunk(T), target = next(tokens) }}
  loss      = {loss}
  batch     = 4
  steps     = 10
  lr        = 1e-3
  precision = f64
  optimizer = adamw(decay = 0)
}}
"""
RNG = np.random.default_rng(0)
TABLE, TOKENS, TARGET = RNG.normal(size=(5, 5)), RNG.integers(0, 5, (4, 3)), RNG.integers(0, 5, (4, 3))


def loss_graph(loss: str) -> Graph:
    spec = text_spec(TEXT.format(loss=loss))
    graph, _ = elaborate_loss(spec, load_recipe(spec))
    assert list(verify(graph, LOSS, check_node)) == []
    return graph


def value(loss: str) -> float:
    found = interpret(loss_graph(loss), {"table.table": TABLE, "tokens": TOKENS, "target": TARGET})["loss"]
    assert found.shape == ()
    return float(found)


def cross_entropy() -> np.ndarray:
    scores = TABLE[TOKENS]
    picked = np.take_along_axis(scores, TARGET[..., None], -1)[..., 0]
    return np.log(np.exp(scores).sum(-1)) - picked


def test_mean_cross_entropy():
    assert value("mean(cross_entropy[V](logits, target))") == pytest.approx(cross_entropy().mean(), rel=1e-12)


def test_the_mean_is_over_the_global_batch():
    graph = loss_graph("mean(cross_entropy[V](logits, target))")
    scale = [node.attrs["value"] for node in graph.nodes("constant")]
    assert 1 / 12 in scale


def test_mean_where():
    keep = TARGET > 1
    wanted = (cross_entropy() * keep).sum() / keep.sum()
    assert value("mean(cross_entropy[V](logits, target), where = target > 1)") == pytest.approx(wanted, rel=1e-12)
    assert "loss.count" in loss_graph("mean(cross_entropy[V](logits, target), where = target > 1)")


def test_taps_inputs_and_other_outputs():
    wanted = TABLE[TOKENS].sum() + 0.5 * TABLE[TOKENS].mean(-1).max(1).mean() + TOKENS.mean()
    assert value("sum(scores) + 0.5 * mean[batch](max[T](size)) + mean(tokens)") == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        ("cross_entropy[V](logits, target)", "E0315"),
        ("mean(cross_entropy[V](logit, target))", "E0101"),
        ("mean(cross_entropy(logits, target))", "E0305"),
        ("3", "E0105"),
    ],
)
def test_faults(loss: str, code: str):
    with pytest.raises(SpecError) as caught:
        loss_graph(loss)
    assert code in {item.code for item in caught.value.diagnostics}, render_all(caught.value.diagnostics)


# ---- functions by name


def optimizer_step(name: str, states: int, scalars: int, options: dict[str, float]) -> tuple[Graph, list[str]]:
    store = GraphBuilder("step")
    build, bodies = Builder(store), dict[str, Graph]()
    dim = Dim("D", 3)
    uses = [build.input(name, (dim,), DType.F64) for name in ("p", "g", "m", "v")[: 2 + states]]
    uses += [build.input(name, (), DType.F64) for name in ("step", "lr")[2 - scalars :]]
    functions = Functions(text_spec("use std\n"))
    for index, use in enumerate(functions(build, bodies, name, uses, options)):
        build.output(str(index), use)
    functions(build, bodies, name, uses, options)
    for key, body in bodies.items():
        store.body(key, body)
    return build.finish(), list(bodies)


def test_adamw_is_one_node_with_one_body():
    options = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1}
    graph, bodies = optimizer_step("adamw", 2, 2, options)
    assert bodies == ["adamw"]
    assert len(graph.nodes("adamw")) == 2
    p, g, m, v = (RNG.normal(size=3) ** 2 for _ in range(4))
    found = interpret(graph, {"p": p, "g": g, "m": m, "v": v, "step": np.float64(3), "lr": np.float64(0.1)})
    n, w = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
    step = 0.1 * (n / (1 - 0.9**3)) / (np.sqrt(w / (1 - 0.99**3)) + 1e-8)
    np.testing.assert_allclose(found["0"], p - 0.1 * 0.1 * p - step, rtol=1e-12)
    np.testing.assert_allclose(found["1"], n)
    np.testing.assert_allclose(found["2"], w)


def test_sgd_is_written_out():
    graph, bodies = optimizer_step("sgd", 1, 1, {"momentum": 0.9, "decay": 0.0})
    assert bodies == []
    p, g, m = (RNG.normal(size=3) for _ in range(3))
    found = interpret(graph, {"p": p, "g": g, "m": m, "lr": np.float64(0.5)})
    np.testing.assert_allclose(found["0"], p - 0.5 * (0.9 * m + g))


def test_a_function_that_is_not_there():
    with pytest.raises(SpecError, match="did you mean `adamw`"):
        optimizer_step("adamW", 2, 2, {})
