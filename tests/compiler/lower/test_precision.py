"""Low precision as lowered stays within what rounding explains, on random graphs and models; a lost cast does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from generators.graphs import graphs
from hypothesis import given, settings
from oracles.lowered import run_lowered
from oracles.roundings import rounding_bounds
from oracles.values import Array, leaf_values, run
from partita.compiler.elaborate.loss import elaborate_loss
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import Dim, DType
from partita.compiler.lower.build import compile_graphs
from partita.compiler.ops.build import Builder
from partita.compiler.passes import run_passes
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.fuse_loss import FuseLoss
from partita.compiler.passes.inline import Inline
from partita.compiler.passes.offsets import Offsets
from partita.compiler.passes.precision import AssignPrecision
from partita.compiler.passes.simplify import Simplify
from partita.runtime import kernels
from samples.recipes import recipe_over

# Without steps (floor, remainders, orders), whose value a rounding may move by more than first order.
SMOOTH = [
    "add", "sub", "mul", "neg", "exp", "tanh", "sigmoid", "erf", "where", "sum", "dot", "renamed dot", "split_dim",
    "merge_dims", "expand", "transpose", "stack", "concat", "split", "gather", "gelu", "gelu_tanh", "silu", "softmax",
    "logsumexp", "cross_entropy", "layer_norm", "rms_norm", "attention", "rotary", "parameter",
]  # fmt: skip
MODELS = [("gpt2", "GPT2"), ("llama3", "Llama3"), ("bloom", "BLOOM"), ("palm", "PaLM"), ("gemma2", "Gemma2")]


def typed(graph: Graph, compute: DType) -> Graph:
    """A loss with its gradients, under mixed precision."""
    passes = [Inline(), Offsets(), Simplify(), Differentiate(), AssignPrecision(compute), Simplify()]
    return run_passes(graph, passes, LOSS)


def model(file: str, name: str, compute: DType, batch: int = 4) -> Graph:
    spec, recipe = recipe_over(file, name, "f32", batch=batch)
    loss, _ = elaborate_loss(spec, recipe, training=False)
    return typed(loss, compute)


def excess(graph: Graph, values: Mapping[str, Array]) -> dict[str, float]:
    """By output, the error of the lowered program over what rounding explains."""
    exact, bounds = run(graph, values), rounding_bounds(graph, values)
    found, _ = run_lowered(graph, values)
    return {
        name: float(np.linalg.norm(np.subtract(found[name].astype(float), exact[name]))) / bounds[name]
        for name in exact
    }


def stored(graph: Graph, values: Mapping[str, Array]) -> dict[str, Array]:
    """The leaves as float32 holds them: what is given is exact."""
    return {
        name: value.astype(np.float32).astype(float) if np.asarray(value).dtype.kind == "f" else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("compute", [DType.BF16, DType.F16])
def test_random_graphs_stay_within_their_bounds(compute: DType) -> None:
    @settings(max_examples=40)
    @given(graphs(batch=3, only=SMOOTH, most=6))
    def holds(graph: Graph) -> None:
        low = typed(graph, compute)
        over = {name: share for name, share in excess(low, stored(low, leaf_values(low))).items() if not share <= 1}
        assert not over, over

    holds()


@pytest.mark.parametrize("compute", [DType.BF16, DType.F16])
@pytest.mark.parametrize(("file", "name"), MODELS)
def test_models_stay_within_their_bounds(file: str, name: str, compute: DType) -> None:
    low = model(file, name, compute)
    over = {key: share for key, share in excess(low, stored(low, leaf_values(low))).items() if not share <= 1}
    assert not over, over


@pytest.mark.parametrize("compute", [DType.BF16, DType.F16])
@pytest.mark.parametrize(("file", "name"), [("gpt2", "GPT2"), ("llama3", "Llama3")])
def test_a_head_in_chunks_stays_within_the_bounds_of_the_whole(file: str, name: str, compute: DType) -> None:
    """Logits as low, and gradients as wide, as where all rows are there at once."""
    low = model(file, name, compute, batch=8)
    values = stored(low, leaf_values(low))
    exact, bounds = run(low, values), rounding_bounds(low, values)
    fused = run_passes(low, [FuseLoss(rows=5), Simplify()], GRADIENT)
    (head,) = fused.nodes("linear_cross_entropy")
    assert [out.dtype for out in head.outs] == [DType.F32, compute, DType.F32]
    again = run(fused, values)
    found, _ = run_lowered(fused, values)
    _, sources = compile_graphs({"step": fused}, {}, {})
    assert "kernels.gathered_product" in "".join(sources.values())
    for key, wanted in exact.items():
        np.testing.assert_allclose(again[key], wanted, rtol=1e-9, atol=1e-12)
        assert float(np.linalg.norm(np.subtract(found[key].astype(float), wanted))) <= bounds[key], key


# ---- broken on purpose


def _lost_width(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss and its log-sum-exp without the cast to float32."""
    lse = torch.logsumexp(logits, 1)
    return torch.stack([lse - logits.gather(1, target).squeeze(1), lse]).float()


def _lost_sums(x: torch.Tensor) -> torch.Tensor:
    """A sum that is rounded at every row."""
    total = torch.zeros_like(x[0])
    for row in x:
        total = total + row
    return total.float()


def _lost_statistics(x: torch.Tensor, gain: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A norm whose statistics are as low as what it normalises."""
    rstd = (x.square().mean(1, keepdim=True) + eps).rsqrt()
    return x * rstd * gain.to(x.dtype), rstd.float()


def alone(kernel: str) -> Graph:
    """One kernel over what is low from the start, so that nothing hides how it computes."""
    batch, wide = Dim("batch", 96), Dim("V", 160)
    b = Builder(GraphBuilder("alone"))
    low = b.input("x", (batch, wide), DType.BF16)
    if kernel == "cross_entropy":
        target = b("input", name="target", below=wide, dims=(batch,), dtype=DType.I64)[0]
        found = b("cross_entropy", low, target, V=(wide,))
    elif kernel == "rms_norm":
        gain = b.parameter("gain", (wide,), DType.F32)
        found = b("rms_norm", low, gain, D=(wide,), eps=1e-5, offset=0.0)
    else:
        found = b("sum", b.one("cast", low, to=DType.F32), over=(batch,))
    for number, use in enumerate(found):
        b.output(str(number), use)
    return b.finish()


@pytest.mark.parametrize(
    ("name", "broken"), [("cross_entropy", _lost_width), ("column_sums", _lost_sums), ("rms_norm", _lost_statistics)]
)
def test_a_kernel_that_forgets_to_be_wide_is_caught(
    name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    low = alone(name)
    values = leaf_values(low)
    values["x"] = torch.tensor(values["x"]).bfloat16().double().numpy()
    assert max(excess(low, values).values()) <= 1
    monkeypatch.setattr(broken, "__name__", name)  # modules call kernels by their names
    monkeypatch.setattr(kernels, name, broken)
    assert max(excess(low, values).values()) > 1
