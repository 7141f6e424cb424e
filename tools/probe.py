"""A training step of a model that has no recipe, for its figures: what a plain AdamW in float32 would take.

In: a forward graph. Out: the same with a stand-in loss (the sum of all float outputs), its backward, and the
optimizer's two states for each parameter. It is never run.
"""

from __future__ import annotations

from ..compiler.ir.graph import Graph, GraphBuilder
from ..compiler.ir.types import Phase
from ..compiler.ops.build import Builder
from ..compiler.passes.differentiate import Differentiate, trained_parameters
from ..compiler.passes.inline import Inline
from ..compiler.passes.route import Route


def probe_step(model: Graph) -> Graph:
    """The graph whose FLOPs and memory stand for training."""
    if not trained_parameters(model) or not any(use.dtype.is_float for use in model.outputs.values()):
        return model
    step = Differentiate()(Route()(Inline()(_with_loss(model))))
    builder = _copy(step)
    b = Builder(builder)
    with b.within(phase=Phase.UPDATE):
        for name in trained_parameters(model):
            kind = step[name].outs[0]
            with b.within(phase=Phase.BACKWARD):
                gradient = b.one("accumulate", step.outputs[f"grad/{name}"])
            for role in ("m", "v"):
                b.state(f"adamw.{role}/{name}", kind.dims, kind.dtype, of=name, role=role)
            b("assign", gradient, target=name)
    return builder.finish()


def _copy(graph: Graph) -> GraphBuilder:
    builder = GraphBuilder.rewriting(graph)
    builder.extend(graph)
    for name, use in graph.outputs.items():
        if not name.startswith("grad/"):  # the update alone reads gradients
            builder.output(name, use)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return builder


def _with_loss(model: Graph) -> Graph:
    if "loss" in model.outputs:
        return model
    builder = _copy(model)
    b = Builder(builder)
    sums = [b.one("sum", use, over=use.dims) for use in model.outputs.values() if use.dtype.is_float]
    builder.output("loss", sums[0] if len(sums) == 1 else b.one("add", *sums))
    return builder.finish()
