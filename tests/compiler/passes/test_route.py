"""A mixture written densely and run sparsely: the same values and gradients, k / E of the work, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lowered import run_lowered
from oracles.probes import probed
from oracles.values import assert_close, assert_same_values, leaf_values, run
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.cost.flops import works
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import LOSS, MODEL
from partita.compiler.ir.types import DType, Phase
from partita.compiler.passes import Pass, check, run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.microbatch import Microbatch
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.route import Route
from partita.compiler.passes.simplify import Simplify
from partita.tools.probe import probe_step
from samples.spec_texts import model_spec, text_spec
from samples.zoo import tiny_model

# Gates: softmax over the picked, as Mixtral; sigmoids, normalised over the picked, as DeepSeek-V3; by a mask of ones.
GATES: Mapping[str, str] = {
    "softmax": "softmax[E](where(pick, z, -inf))",
    "share": "softmax[E](z) * where(pick, 1, 0)",
    "sigmoid": "chosen / sum[E](chosen)",
    "added": "softmax[E](z + where(pick, 0, -inf))",
}
# Experts: gated linear units; with biases and a norm of each expert's own; weights alone.
EXPERTS: Mapping[str, str] = {
    "glu": "bank E of GLU[D, F]",
    "bias": "bank E of MLP[D, F]",
    "norm": "bank E of Normed[D, F]",
}
SUMS = ("sum[E](gates * experts(x))", "dot[E](gates, experts(x))", "sum[E](gates * experts(x)) + 0.5 * x")


@dataclass(frozen=True)
class Mixture:
    """One way to write a mixture, and its sizes."""

    gates: str = "softmax"
    experts: str = "glu"
    total: int = 0
    E: int = 4
    k: int = 2
    T: int = 5
    batch: int = 2

    def graph(self, add: str = "") -> Graph:
        chosen = "chosen = where(pick, sigmoid(z), 0)\n  " if self.gates == "sigmoid" else ""
        spec = text_spec(f"""use std
block Normed[D, F] : x[D] -> [D] {{
  norm : RMSNorm[D]
  up   : Linear[D, F]
  down : Linear[F, D]
  return x + down(gelu(up(norm(x))))
}}
model M : x[T, D] -> y[T, D] {{
  router  : Linear[D, E](bias = false)
  experts : {EXPERTS[self.experts]}
  z    = router(x)
  pick = top[E](z, {self.k})
  {chosen}gates = {GATES[self.gates]}
  {add}
  return {SUMS[self.total]}
}}
""")
        dims = {"D": 4, "F": 3, "E": self.E, "T": self.T, "batch": self.batch}
        return elaborate_model(spec, "M", dims=dims, dtype=DType.F64)[0]


def passes(*more: Pass) -> list[Pass]:
    return [Inline(), Offsets(), *more, Simplify()]


mixtures = st.builds(
    Mixture,
    gates=st.sampled_from(list(GATES)),
    experts=st.sampled_from(list(EXPERTS)),
    total=st.integers(0, len(SUMS) - 1),
    E=st.integers(3, 5),
    k=st.integers(1, 3),
    T=st.integers(1, 6),
    batch=st.integers(1, 3),
)


@settings(max_examples=15)
@given(mixtures, st.sampled_from(["any", "tied", "one"]), st.booleans())
def test_sparse_is_dense(mixture: Mixture, router: str, lowered: bool) -> None:
    """Values and all gradients, where scores tie (so that experts have no token), and where all tokens go to some."""
    graph = probed(mixture.graph())
    dense, sparse = (run_passes(graph, [*passes(*more), Differentiate()], LOSS) for more in ((), (Route(),)))
    assert sparse.nodes("grouped_dot"), "it was routed"
    assert not [n for n in sparse if {"T", "E"} <= {d.name for t in n.outs for d in t.dims} and len(n.outs[0].dims) > 3]
    values = leaf_values(graph)
    weights = values["router.w"]
    weights[...] = 0 if router == "tied" else weights
    weights[:, 1:] = 0 if router == "one" else weights[:, 1:]
    values["x"] = np.abs(values["x"]) if router == "one" else values["x"]
    assert_close(run(sparse, values), run(dense, values), 1e-11)
    if lowered:
        assert_close(run_lowered(sparse, values)[0], run(dense, values), 1e-11)


def test_it_is_idempotent_and_keeps_what_is_no_mixture() -> None:
    graph = run_passes(probed(Mixture().graph()), passes(), LOSS)
    routed = Route()(graph)
    check(routed, LOSS, "a routed graph")
    assert Route()(routed) == routed
    dense = tiny_model("gpt2", "GPT2")
    assert Route()(dense) is dense


@pytest.mark.parametrize("parts", [2, 4])
def test_rows_of_the_batch_stay_apart(parts: int) -> None:
    """Tokens are sorted within their row: microbatches need not know each other."""
    graph = run_passes(probed(Mixture(batch=4).graph()), [*passes(Route()), Differentiate()], LOSS)
    values = leaf_values(graph)
    assert_same_values(graph, Microbatch(parts)(graph), values)


def test_without_another_axis_the_batch_is_sorted() -> None:
    spec = text_spec("""use std
model M : x[D] -> y[D] {
  moe : MoE[D, F, E](k = 1)
  return moe(x)
}
""")
    graph = elaborate_model(spec, "M", dims={"D": 4, "F": 3, "E": 3, "batch": 6}, dtype=DType.F64)[0]
    graph = probed(graph)
    routed = run_passes(graph, passes(Route()), LOSS)
    assert routed.nodes("grouped_dot")
    assert_same_values(graph, routed, leaf_values(graph))


def model_flops(graph: Graph) -> int:
    """FLOPs of the products of experts."""
    return sum(work.model_flops for node, work in works(graph) if ".experts." in f".{node.path}.")


def test_work_is_that_of_the_picked_alone() -> None:
    """Forward and backward, to the FLOP: k of E."""
    graph = probed(Mixture(E=5, k=2).graph())
    dense, sparse = (run_passes(graph, [*passes(*more), Differentiate()], LOSS) for more in ((), (Route(),)))
    assert 5 * model_flops(sparse) == 2 * model_flops(dense) > 0


@pytest.mark.parametrize(
    ("add", "fault"),
    [("tap best = max[E](gates * experts(x))", "max"), ("tap every = gates * experts(x)", "every")],
)
def test_experts_that_run_for_every_token_are_an_error(add: str, fault: str) -> None:
    """What an expert gives is read for tokens that did not pick it."""
    with pytest.raises(SpecError) as error:
        run_passes(Mixture().graph(add), passes(Route()), MODEL)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "E0914"
    assert "2 of E = 4" in diagnostic.title


def test_a_balancing_loss_reads_the_pick() -> None:
    """Taps of gates stay dense; they cost no expert."""
    graph = probed(Mixture().graph("tap used = where(pick, 1, 0)"))
    routed = run_passes(graph, passes(Route()), LOSS)
    assert_same_values(graph, routed, leaf_values(graph))


def test_mixtral_takes_what_it_activates() -> None:
    """12.9e9 of 46.7e9 parameters meet a token (Jiang et al. 2024): the embedding multiplies nothing."""
    dims = {"T": 1, "batch": 1}
    graph, _ = elaborate_model(model_spec("mixtral"), "Mixtral", size="8x7B", dims=dims)
    step = probe_step(graph)
    forward = sum(work.model_flops for node, work in works(step) if node.phase is Phase.FORWARD)
    scores = 32 * 4 * 4096  # attention's own, of one token with itself
    assert forward == 2 * (12_879_925_248 - 131_072_000 - 65 * 4096) + scores
