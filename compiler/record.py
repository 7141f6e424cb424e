"""What a build says of itself beside its programs: whose kernels it calls, what it foretells, what it exports.

In: a spec, a recipe, and its graphs before any is laid out or lowered. Out: the packages of foreign kernels, all of
them allowed; a step's parameters, FLOPs, tokens and estimated peak; the map by which weights are written for others.
None of it changes what is computed: a run reads it to report, to load kernels and to export.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .base.diagnostic import Diagnostic, Diagnostics, Label, SpecError
from .cost.flops import parameter_count, works
from .cost.memory import step_memory
from .elaborate.load import Spec
from .elaborate.recipe import Recipe
from .elaborate.weights import weight_map
from .ir.graph import Graph
from .ir.types import Phase
from .ops.foreign import BACKWARD, FOREIGN, package_of


def foreign_packages(graphs: Iterable[Graph], allowed: Collection[str]) -> tuple[str, ...]:
    """The packages whose kernels graphs call. Raises SpecError E0921 for one that is not allowed."""
    sink, found = Diagnostics(), dict[str, None]()
    for node in (node for graph in graphs for node in graph if node.op in (FOREIGN, BACKWARD)):
        package = package_of(node)
        if package not in allowed and package not in found:
            title = f"`{node.attrs['kernel']}` is a kernel of the package `{package}`, which is not allowed"
            sink.add(Diagnostic("E0921", title, hint=f"--allow-kernels {package}, if you trust it"))
        found[package] = None
    sink.raise_if_errors()
    return tuple(found)


def predictions(steps: Mapping[str, Graph], recipe: Recipe) -> dict[str, float]:
    """What the graphs foretell of a step. The peak is an estimate: `compile_recipe` puts that of the lowered program in
    its place, and its seconds beside."""
    repeat = {turn.program: turn.repeat for turn in recipe.turns}
    flops = [model_flops(step) * repeat[name] for name, step in steps.items()]
    return {
        "parameters": max(parameter_count(step) for step in steps.values()),
        "step_flops": sum(flops) if all(flops) else 0,
        "peak_bytes": max(step_memory(step).peak_bytes for step in steps.values()),
        "tokens_per_step": recipe.tokens_per_step,
    }


def model_flops(step: Graph) -> int:
    """FLOPs of the contractions of a whole step, as MFU counts them: nothing that is computed again counts.

    0, which stands for unknown, where a foreign kernel computes: nobody knows what it does.
    """
    if any(step.nodes(op) for op in (FOREIGN, BACKWARD)):
        return 0
    return sum(work.model_flops for node, work in works(step) if node.phase in (Phase.FORWARD, Phase.BACKWARD))


def exported(spec: Spec, recipe: Recipe) -> dict[str, object] | None:
    """When weights are written for others, and the map that says how. Raises SpecError where there is none for all."""
    if recipe.export is None:
        return None
    ref = recipe.model
    found = weight_map(spec, ref.name, size=ref.size, dims=recipe.dims, options=ref.options)
    if found.anew:
        labels = (Label(recipe.export.span, "so nothing can be exported"),) if recipe.export.span else ()
        names = ", ".join(found.anew[:5]) + (", …" if len(found.anew) > 5 else "")
        raise SpecError(Diagnostic("E0804", f"the weight map has no place for {names}", labels))
    return {"every": recipe.export.every, "weights": found.plain()}
