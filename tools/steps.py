"""The graphs of a recipe (step, evaluate, predict) and what is foretold of its step.

In: a spec and its recipe. Out: graphs ready to be lowered, and predictions as the build folder keeps them. The order of
the passes is the whole of it.
"""

from __future__ import annotations

from ..compiler.cost.flops import by_phase, parameter_count
from ..compiler.cost.memory import CPU_ROUNDING_BYTES, CUDA_ROUNDING_BYTES, step_memory
from ..compiler.cost.roofline import Machine, step_time
from ..compiler.elaborate.apply import Functions
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.loss import elaborate_loss
from ..compiler.elaborate.models import BATCH, elaborate_model
from ..compiler.elaborate.recipe import Recipe
from ..compiler.ir.graph import Graph
from ..compiler.ir.levels import LOSS, MODEL
from ..compiler.ir.types import Phase
from ..compiler.passes.definition import Pass, run_passes
from ..compiler.passes.differentiate import Differentiate
from ..compiler.passes.inline import Inline
from ..compiler.passes.microbatch import Microbatch
from ..compiler.passes.offsets import Offsets
from ..compiler.passes.simplify import Simplify
from ..compiler.passes.update import Update


def step_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The whole training step: forward, loss, backward, update; one microbatch of `recipe.microbatches`."""
    graph, _ = elaborate_loss(spec, recipe)
    cut = (BATCH,) if recipe.microbatches > 1 else ()
    update = Update(recipe.optimizer, recipe.schedule, Functions(spec), recipe.clip)
    parts: list[Pass] = [Microbatch(recipe.microbatches)] if cut else []
    return run_passes(graph, [Inline(), Offsets(cut), Simplify(), Differentiate(), *parts, update, Simplify()], LOSS)


def evaluate_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The loss alone, of one batch, without dropout."""
    graph, _ = elaborate_loss(spec, recipe, training=False)
    cut = (BATCH,) if recipe.microbatches > 1 else ()
    parts: list[Pass] = [Microbatch(recipe.microbatches)] if cut else []
    return run_passes(graph, [Inline(), Offsets(cut), Simplify(), *parts], LOSS)


def predict_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The model's outputs for one row."""
    ref, dims = recipe.model, {**recipe.dims, BATCH: 1}
    graph, _ = elaborate_model(
        spec, ref.name, size=ref.size, dims=dims, options=ref.options, dtype=recipe.precision.single
    )
    return run_passes(graph, [Inline(), Offsets(), Simplify()], MODEL)


def predictions(step: Graph, tokens_per_step: int, machine: Machine | None, device: str = "cpu") -> dict[str, float]:
    """What the compiler foretells of a step; seconds only where the machine is known."""
    work = by_phase(step)
    rounding = CPU_ROUNDING_BYTES if device == "cpu" else CUDA_ROUNDING_BYTES
    found: dict[str, float] = {
        "parameters": parameter_count(step),
        "step_flops": work[Phase.FORWARD].model_flops + work[Phase.BACKWARD].model_flops,
        "peak_bytes": step_memory(step, rounding).peak_bytes,
        "tokens_per_step": tokens_per_step,
    }
    if machine is not None:
        found["step_seconds"] = step_time(step, machine).seconds
    return found
