"""What update is held to: the optimizer's function itself, applied to each parameter's gradient alone.

In: the gradients and the leaves. Out: what a step should leave in every parameter and in every state of the optimizer:

    norm = sqrt(Σ g²) / scale,  g' = g / scale · min(1, clip / (norm + 1e-6)),  p', states' = f(p, g', states, n, rate)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...compiler.elaborate.apply import Functions
from ...compiler.elaborate.recipe import OptimizerGroup
from ...compiler.elaborate.schedule import constant, rate_at
from ...compiler.interpret import interpret
from ...compiler.ir.graph import Graph, GraphBuilder
from ...compiler.ir.types import DType, Node
from ...compiler.ops.build import Builder
from ...compiler.ops.definition import Array
from ...compiler.passes.guard import scale_name
from ...compiler.passes.update import CLIP_EPSILON, Update, group_of
from .values import Leaves

NORM = "grad_norm"


def updated(update: Update, before: Graph, gradients: Mapping[str, Array], leaves: Leaves) -> dict[str, Array]:
    """The norm of the gradients, and every parameter and optimizer's state after the step, by id."""
    scale = 1.0 if update.scale is None else float(leaves.get(scale_name(update.label), update.scale.start))
    norm = math.sqrt(sum(float(np.sum(np.square(g))) for g in gradients.values())) / scale
    factor = min(1.0, update.clip / (norm + CLIP_EPSILON)) if update.clip is not None else 1.0
    found: dict[str, Array] = {NORM: np.asarray(norm)}
    for name, gradient in gradients.items():
        group = group_of(update.groups, name)
        assert group is not None, f"{name} has an optimizer"
        states = [f"{group.function}.{role}/{name}" for role in group.states]
        values = [leaves[name], gradient * (factor / scale), *(leaves[state] for state in states)]
        results = _applied(update, group, before[name], values, leaves)
        found.update(zip([name, *states], results, strict=True))
    return found


def _applied(
    update: Update, group: OptimizerGroup, parameter: Node, values: Sequence[Array], leaves: Leaves
) -> list[Array]:
    """The optimizer's function of one parameter, its gradient and its states."""
    step = int(leaves["step"])
    guarded = f"{update.label}.updates"
    count = float(leaves[guarded]) + 1 if update.scale is not None or update.skips else step + 1.0
    rate = rate_at(group.schedule or update.schedule, step // update.repeat)
    b = Builder(GraphBuilder("update"))
    dims = parameter.outs[0].dims
    operands = [b.input(f"x{at}", dims, DType.F64) for at in range(len(values))]
    numbers = [count, rate] if group.counts else [rate]
    operands += [constant(b, number, DType.F64) for number in numbers]
    bodies: dict[str, Graph] = {}
    functions = update.optimize
    assert isinstance(functions, Functions), "the recipe's own"
    results = functions(b, bodies, group.function, operands, group.options)
    for at, use in enumerate(results):
        b.output(str(at), use)
    for key, body in bodies.items():
        b.graph.body(key, body)
    found = interpret(b.finish(), {f"x{at}": value for at, value in enumerate(values)})
    return [found[str(at)] for at in range(len(results))]
