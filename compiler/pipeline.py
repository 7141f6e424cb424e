"""The order of everything, on one screen: a spec's text to graphs, graphs through the passes, a step to a build folder.

Nothing here decides anything: it calls the parts in order. torch is loaded only by `compile_recipe` and `module`, so
that whoever checks, shows or draws a spec never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .base.diagnostic import Diagnostic, Diagnostics, Label, SpecError
from .clusters import cluster_named
from .cost.cluster import H100_NODES, Cluster
from .cost.flops import parameter_count, works
from .cost.memory import step_memory
from .cost.roofline import node_time
from .cost.table import Table
from .elaborate import check
from .elaborate.apply import Functions
from .elaborate.causality import foresight
from .elaborate.load import Spec, load
from .elaborate.loss import elaborate_loss
from .elaborate.models import BATCH, elaborate_model
from .elaborate.plain import plain
from .elaborate.recipe import Plan, Recipe, Recompute
from .elaborate.weights import weight_map
from .ir.graph import Graph
from .ir.layout import PIPE, Layout, Mesh
from .ir.levels import GRADIENT, LOSS, MODEL, PARTITIONED
from .ir.slices import MARK
from .ir.types import DType, Phase
from .language.parse import read_source
from .ops.foreign import BACKWARD, FOREIGN, package_of
from .partition import kept
from .partition.choices import DATA, Wishes
from .partition.decide import Decision, decide
from .partition.factors import factored as in_factors
from .partition.impossible import idle_axes
from .passes import Pass, run_passes
from .passes import check as check_graph
from .passes.differentiate import Differentiate
from .passes.documents import Documents
from .passes.fuse_loss import FuseLoss
from .passes.guard import SCALED_LOSS
from .passes.inline import Inline
from .passes.microbatch import Microbatch
from .passes.offsets import Offsets
from .passes.precision import AssignPrecision, unused
from .passes.rematerialize import LAYERS, Rematerialize
from .passes.route import Route
from .passes.scale import ScaleLoss
from .passes.simplify import Simplify
from .passes.token_slices import TokenSlices
from .passes.update import Update
from .recompute.block import Value, blocks_of
from .recompute.chain import chain_of
from .recompute.fit import fit
from .schedule.forms import TOKEN_SLICES, parse_form

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..runtime.program import Build
    from .lower.footprint import Footprint

PREDICT = "predict"  # the program that one device runs
After = Callable[[Pass, Graph], None]

# What a device computes again rather than keeps: see `passes/rematerialize.py`.
RECOMPUTE: Mapping[str, str] = MappingProxyType({"cpu": "light", "cuda": "cheap"})
# Rows of logits that a device takes at a time: each chunk reads and writes the head's gradient once more, which is to
# be nothing against its 6 rows D V operations; so the more, the faster the device computes for its bandwidth.
ROWS_AT_ONCE: Mapping[str, int] = MappingProxyType({"cpu": 512, "cuda": 4096})


# ---- text to spec


def open_spec(path: str | Path) -> Spec:
    """The spec in a file and all that it uses. Raises SpecError with everything that cannot be read."""
    spec, diagnostics = load(read_source(path))
    if spec is None:
        raise SpecError(diagnostics)
    return spec


def check_text(text: str, path: str = "<text>") -> list[Diagnostic]:
    """Everything that is wrong with a spec: syntax, names, dims of its models under every size, records."""
    return list(check.check_text(text, path))


# ---- spec to graphs


def with_size(recipe: Recipe, size: str | None) -> Recipe:
    """The recipe for another row of its model's sizes, where one is asked for."""
    return recipe if size is None else replace(recipe, model=replace(recipe.model, size=size))


def forward_passes(
    cut: Sequence[str] = (), types: Sequence[Pass] = (), kernels: Sequence[str] = (), gradients: bool = False
) -> list[Pass]:
    """What every graph goes through: some kernels become bodies, starts fold, mixtures are sparse; then `types`."""
    inline = Inline(kernels=tuple(kernels), gradients=gradients)
    return [inline, Offsets(tuple(cut)), Route(), Simplify(), *types, *([Simplify()] if types else [])]


def rows_passes(recipe: Recipe, gradients: bool = False) -> list[Pass]:
    """Where rows are ragged, their documents are kept apart; what counts positions itself becomes its body before."""
    if recipe.rows is None or not recipe.rows.ragged:
        return []
    inline = Inline(kernels=tuple(recipe.kernels), gradients=gradients)
    return [inline, Inline(all=True, only=("rotary",)), Documents(recipe.rows.dim)]


def slice_passes(recipe: Recipe) -> list[Pass]:
    """Where the pipeline's schedule cuts rows into token slices, every slice has nodes of its own. Raises SpecError."""
    plan = recipe.plan or Plan()
    form = parse_form(plan.schedule)
    if form.name != TOKEN_SLICES or PIPE not in dict(plan.mesh):
        return []
    if recipe.rows is None or recipe.rows.ragged:
        kind = "no rows of tokens" if recipe.rows is None else "rows of several documents"
        raise SpecError(Diagnostic("E0917", f"`{plan.schedule}`: the data has {kind}", hint="rows = chunk(T) has some"))
    inline = Inline(kernels=tuple(recipe.kernels), gradients=True)
    return [inline, TokenSlices(form.lengths(recipe.rows.length), recipe.rows.dim)]


def precision_pass(recipe: Recipe) -> AssignPrecision:
    """The pass that gives every value the recipe's types."""
    return AssignPrecision(recipe.precision.compute, recipe.precision.params, recipe.precision.overrides)


def recompute_pass(recipe: Recipe, device: str) -> Rematerialize:
    """The pass that computes again what the recipe's plan says; what a budget leaves to choose is not chosen yet."""
    wanted = Recompute() if recipe.plan is None else recipe.plan.recompute
    policy = "none" if wanted.kind in ("none", "budget") else RECOMPUTE[device]
    return Rematerialize(policy, wanted.kind if wanted.kind in LAYERS else "none", wanted.paths)


def step_passes(spec: Spec, recipe: Recipe, device: str = "cpu", fuse_loss: bool = True) -> list[Pass]:
    """What makes a loss into a training step: gradients, what is computed again, the update, microbatches."""
    cut = (BATCH,) if recipe.microbatches > 1 else ()
    types, scale = recipe.precision, recipe.precision.scale
    functions, label = Functions(spec), recipe.program
    return [
        *rows_passes(recipe, gradients=True),
        *slice_passes(recipe),
        *forward_passes(cut, kernels=recipe.kernels, gradients=True),
        *([] if scale is None else [ScaleLoss(scale.start, label)]),
        Differentiate("loss" if scale is None else SCALED_LOSS),
        precision_pass(recipe),
        *([FuseLoss(ROWS_AT_ONCE[device], recipe.microbatches)] if fuse_loss else []),
        recompute_pass(recipe, device),
        Update(
            recipe.optimizer,
            recipe.schedule,
            functions,
            recipe.clip,
            recipe.repeat,
            types.reduce,
            scale,
            recipe.skips,
            label,
            recipe.log.grad_norm,
        ),
        Microbatch(recipe.microbatches),
        Simplify(),
    ]


def step_graph(
    spec: Spec, recipe: Recipe, after: After | None = None, device: str = "cpu", keep: Collection[str] = ()
) -> Graph:
    """The whole training step of a recipe; of several updates that take turns, the first. Raises SpecError.

    `keep` names values of the forward that stay though nothing reads them (see `elaborate_loss`).
    """
    turn = recipe.turns[0]
    loss, _ = elaborate_loss(spec, turn, keep=keep)
    return run_passes(loss, within_budget(loss, step_passes(spec, turn, device), turn, device), LOSS, after)


def within_budget(loss: Graph, passes: list[Pass], recipe: Recipe, device: str) -> list[Pass]:
    """The passes of a step, computing as little again as its plan's budget asks for. Raises SpecError E0951."""
    budget = None if recipe.plan is None else recipe.plan.recompute.budget_bytes
    if budget is None:
        return passes
    at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
    kept = run_passes(loss, passes[:at], LOSS)
    chain = chain_of(blocks_of(kept, lambda node: node_time(node, H100_NODES.machine).seconds))

    def peak_bytes(again: frozenset[Value]) -> int:
        step = run_passes(kept, [Rematerialize("none", values=again), *passes[at + 1 :]], GRADIENT)
        return peak_on_mesh(step, recipe.plan or Plan(), device)

    return [*passes[:at], Rematerialize("none", values=fit(chain, peak_bytes, budget)), *passes[at + 1 :]]


def peak_on_mesh(step: Graph, plan: Plan, device: str = "cpu", cluster: Cluster = H100_NODES) -> int:
    """Bytes of the device of a plan's mesh that takes most. Raises SpecError."""
    from .lower.build import compile_graphs, graph_footprint
    from .lower.spread import spread

    if PIPE in dict(plan.mesh):
        raise SpecError(
            Diagnostic("E0416", "a budget for what the stages of a pipeline compute again is not built yet")
        )
    if Mesh(plan.mesh).devices == 1:
        return graph_footprint(step, device).memory.peak_bytes
    mesh, wishes = factored(step, Mesh(plan.mesh), wishes_of(plan))
    laid = laid_out({"step": [step]}, mesh, wishes, cluster, plan.budget_bytes)
    graphs, lying = spread({name: decision.graph for name, decision in laid.items()}, mesh)
    build, _ = compile_graphs(graphs, {}, {}, device=device, spread=lying)
    return int(build.predictions["peak_bytes"])


def unfused_step(spec: Spec, recipe: Recipe, device: str = "cpu", keep: Collection[str] = ()) -> Graph:
    """The step of a recipe that is one turn, its loss apart from the head: so both can be cut along the vocabulary."""
    loss, _ = elaborate_loss(spec, recipe, keep=keep)
    passes = step_passes(spec, recipe, device, fuse_loss=False)
    return run_passes(loss, within_budget(loss, passes, recipe, device), LOSS)


def partitioned_step(
    spec: Spec, recipe: Recipe, plan: Plan, *, cluster: Cluster | None = None, device: str = "cpu"
) -> Decision:
    """The training step laid out on the plan's mesh, its loss fused with the head where that takes less time.

    Priced on the cluster, else on the recipe's, else on H100s. Raises SpecError where a wish cannot be fulfilled.
    """
    turn = recipe.turns[0]
    steps = [step_graph(spec, turn, device=device), unfused_step(spec, turn, device)]
    priced, limit = machines(Mesh(plan.mesh), plan, cluster or recipe_cluster(spec, recipe))
    return partitioned(steps, Mesh(plan.mesh).without(PIPE), wishes_of(plan), priced, limit)


def recipe_cluster(spec: Spec, recipe: Recipe) -> Cluster | None:
    """The machines that a recipe names. Raises SpecError."""
    return None if recipe.cluster is None else cluster_named(recipe.cluster, spec)


def machines(mesh: Mesh, plan: Plan, cluster: Cluster | None) -> tuple[Cluster, int | None]:
    """What a mesh is priced on, and what a device of it may hold: of a cluster that is named no more than it has, of
    the H100s that stand for none what the plan says. Raises SpecError E0945 where there are too few devices."""
    if cluster is None:
        return H100_NODES, plan.budget_bytes
    if mesh.devices > cluster.devices:
        title = f"{mesh} is {mesh.devices} devices; the cluster has {cluster.devices}"
        raise SpecError(Diagnostic("E0945", title, hint="a record with another level, or more members in the last"))
    return cluster, min(plan.budget_bytes or cluster.memory_bytes, cluster.memory_bytes)


def wishes_of(plan: Plan) -> Wishes:
    """What a plan asks of layouts. Raises SpecError E0947 for a dim that is to be cut and not to be, and for a stage of
    ZeRO without an axis to cut over."""
    if plan.zero and plan.mesh and DATA not in dict(plan.mesh):
        title = f"ZeRO stage {plan.zero} cuts over the axis `{DATA}`, and the mesh is {Mesh(plan.mesh)}"
        axes = ",".join(f"{name}={size}" for name, size in ((DATA, 2), *plan.mesh))
        raise SpecError(Diagnostic("E0947", title, hint=f"for instance --mesh {axes}"))
    pins: dict[str, tuple[str, ...]] = {}
    for dim, axis in plan.pins:
        others = {other for name, other in plan.pins if name == dim}
        if None in others and len(others) > 1:
            one = next(other for other in others if other is not None)
            title = f"the pins `{dim} -> {one}` and `{dim} -> none` exclude each other"
            raise SpecError(Diagnostic("E0947", title, hint="keep one of them"))
        pins[dim] = pins.get(dim, ()) + (() if axis is None else (axis,))
    return Wishes(pins, plan.zero)


def partitioned(
    ways: Sequence[Graph], mesh: Mesh, wishes: Wishes, cluster: Cluster = H100_NODES, memory_bytes: int | None = None
) -> Decision:
    """Of graphs that compute the same, the one that takes least time, laid out. Raises SpecError."""
    mesh, wishes = factored(ways[0], mesh, wishes)
    different = [graph for at, graph in enumerate(ways) if all(len(graph) != len(other) for other in ways[:at])]
    decisions = [decide(graph, mesh, cluster, wishes, memory_bytes) for graph in different]
    best = min(decisions, key=lambda decision: decision.solution.seconds)
    check_graph(best.graph, PARTITIONED, "the partitioned graph")
    return best


def factored(graph: Graph, mesh: Mesh, wishes: Wishes) -> tuple[Mesh, Wishes]:
    """The mesh as it is laid out on, an axis in factors where a dim is too short for it, and the wishes for it."""
    return in_factors(graph, mesh, _of_slices(graph, _with_batch(graph, mesh, wishes)))


def _with_batch(graph: Graph, mesh: Mesh, wishes: Wishes) -> Wishes:
    """The axis `data` cuts the batch, where it is long enough and nothing else was asked for."""
    batch = graph.dims().get(BATCH)
    if batch is None or BATCH in wishes.pins or DATA not in mesh.names or (batch.size or 0) < mesh.size(DATA):
        return wishes
    return replace(wishes, pins={**wishes.pins, BATCH: (DATA,)})


def _of_slices(graph: Graph, wishes: Wishes) -> Wishes:
    """What is said of the tokens is said of every slice of them."""
    marks = {name: name.partition(MARK)[0] for name in graph.dims() if MARK in name}
    own = {name: wishes.pins[whole] for name, whole in marks.items() if whole in wishes.pins}
    return replace(wishes, pins={**wishes.pins, **own})


def step_graphs(spec: Spec, recipe: Recipe, device: str = "cpu", keep: Collection[str] = ()) -> dict[str, Graph]:
    """The program of each update of a step, by name, in the order in which they run. Raises SpecError."""
    steps = {turn.program: step_graph(spec, turn, device=device, keep=keep) for turn in recipe.turns}
    idle = [set(unused(step, recipe.precision.overrides)) for step in steps.values()]
    for pattern in sorted(set[str].intersection(*idle)):
        raise SpecError(Diagnostic("E0916", f"`precision` names `{pattern}`, and no part of the model is called so"))
    return steps


def rounded_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The loss and the gradients (of the scaled loss, where it is scaled) of one microbatch in the recipe's types.

    Raises SpecError.
    """
    rows = replace(recipe, batch=recipe.rows_per_microbatch, microbatches=1)
    loss, _ = elaborate_loss(spec, rows)
    scale = rows.precision.scale
    scaled = [] if scale is None else [ScaleLoss(scale.start, rows.program)]
    gradients = Differentiate("loss" if scale is None else SCALED_LOSS)
    passes = [*rows_passes(rows), *forward_passes(kernels=rows.kernels, gradients=True), *scaled, gradients]
    return run_passes(loss, [*passes, precision_pass(rows), Simplify()], LOSS)


def evaluate_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The loss alone, on one microbatch's rows, nothing dropped. Raises SpecError."""
    rows = replace(recipe, batch=recipe.rows_per_microbatch, microbatches=1)
    loss, _ = elaborate_loss(spec, rows, training=False)
    return run_passes(loss, evaluation_passes(recipe), LOSS)


def evaluation_passes(recipe: Recipe) -> list[Pass]:
    """What makes a loss into the program that evaluates it."""
    return [*rows_passes(recipe), *forward_passes(types=[precision_pass(recipe)], kernels=recipe.kernels)]


def predict_graph(spec: Spec, recipe: Recipe) -> Graph:
    """The model's outputs for one row. Raises SpecError."""
    ref = recipe.model
    graph, _ = elaborate_model(
        spec, ref.name, size=ref.size, dims={**recipe.dims, BATCH: 1}, options=ref.options,
        dtype=recipe.precision.params,
    )  # fmt: skip
    return run_passes(graph, forward_passes(types=[precision_pass(recipe)], kernels=recipe.kernels), MODEL)


def model_graph(
    spec: Spec, model: str | None = None, *, size: str | None = None, dims: Mapping[str, int] | None = None,
    options: Mapping[str, object] | None = None, training: bool = False, dtype: DType = DType.F32,
) -> Graph:  # fmt: skip
    """A model's forward graph, ready to lower if every dim has a size. Raises SpecError."""
    graph, _ = elaborate_model(spec, model, size=size, dims=dims, options=options, training=training, dtype=dtype)
    return run_passes(graph, forward_passes(), MODEL)


def gradient_graph(graph: Graph) -> Graph:
    """A loss and the gradient of every trained parameter, for a graph with the output `loss`."""
    return run_passes(graph, [Differentiate(), Simplify()], LOSS)


# ---- graphs to programs


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


def compile_recipe(
    spec: Spec,
    recipe: Recipe,
    folder: str | Path | None,
    *,
    device: str = "cpu",
    table: Table | None = None,
    dump: Sequence[str] = (),
    mesh: Mesh | None = None,
    wishes: Wishes | None = None,
    cluster: Cluster | None = None,
    warn: Callable[[Sequence[Diagnostic]], None] | None = None,
) -> Build:
    """The build folder of a recipe: programs to train, evaluate and predict. Raises SpecError, OSError.

    `table` is what kernels take on this machine: without it no time is foretold. `warn`: told of what is hardly meant.
    On a mesh (the recipe's plan's, or the one given), training and evaluation are laid out on it as the wishes and the
    prices of the cluster (the recipe's, or the one given) say.
    """
    from .lower.build import lower
    from .lower.outside import ALONE
    from .lower.spread import spread
    from .lower.stages import Pipeline, piped

    steps = step_graphs(spec, recipe, device, dump)
    graphs = {**steps, "evaluate": evaluate_graph(spec, recipe), PREDICT: predict_graph(spec, recipe)}
    packages = foreign_packages(graphs.values(), recipe.kernels)
    foretold = predictions(steps, recipe)
    record = {**plain(recipe), "sees_ahead": foresight(graphs[PREDICT]), "export": exported(spec, recipe)}
    lying, files = ALONE, dict[str, str]()
    plan = recipe.plan or Plan()
    mesh, wishes = mesh or Mesh(plan.mesh), wishes or wishes_of(plan)
    inner, stages = mesh.without(PIPE), dict(mesh.axes).get(PIPE, 1)
    priced = machines(mesh, plan, cluster or recipe_cluster(spec, recipe))
    if inner.devices > 1:
        ways = {name: [graph] for name, graph in graphs.items() if name != PREDICT}
        for turn in recipe.turns:
            ways[turn.program].append(unfused_step(spec, turn, device, dump))
        inner, wishes = factored(next(iter(steps.values())), inner, wishes)
        chosen = laid_out(ways, inner, wishes, *priced)
        laid = {name: decision.graph for name, decision in chosen.items()}
        graphs, lying = spread({**laid, PREDICT: graphs[PREDICT]}, inner)
        step = next(iter(chosen.values()))
        files = kept.files(step)
        if warn is not None:
            warn(idle_axes(step.graph, step.mesh))
    if stages > 1:
        trained = {name: graph for name, graph in graphs.items() if name != PREDICT}
        wanted = Pipeline(plan.schedule, plan.balance, *priced)
        lying = piped(trained, lying, inner.across(PIPE, mesh), wanted)
    return lower(
        graphs, record, foretold, folder, device=device, dump=dump, files=files, kernels=packages, spread=lying,
        table=table,
    )  # fmt: skip


def laid_out(
    graphs: Mapping[str, Sequence[Graph]], mesh: Mesh, wishes: Wishes, cluster: Cluster = H100_NODES,
    memory_bytes: int | None = None,
) -> dict[str, Decision]:  # fmt: skip
    """A build's graphs on a mesh, each the best of its ways; parameters and states lie as the first has laid them."""
    found: dict[str, Decision] = {}
    leaves: dict[str, Layout] = {}
    for name, ways in graphs.items():
        here = replace(wishes, leaves=dict(leaves))
        found[name] = partitioned(ways, mesh, here, cluster, memory_bytes)
        leaves |= {n.id: n.layouts[0] for n in found[name].graph if n.op in ("parameter", "state")}
    return found


def step_footprint(spec: Spec, recipe: Recipe, *, device: str = "cpu") -> Footprint:
    """What a recipe's step occupies when it runs: the peak, its owners, and its course. Raises SpecError.

    Of several updates that take turns, the one that reaches highest.
    """
    from .lower.build import graph_footprint

    steps = step_graphs(spec, recipe, device)
    found = [graph_footprint(step, device) for step in steps.values()]
    return max(found, key=lambda one: one.memory.peak_bytes)


def module(
    spec: Spec, model: str | None = None, *, size: str | None = None, dims: Mapping[str, int],
    options: Mapping[str, object] | None = None, training: bool = False, dtype: DType = DType.F32,
) -> GraphModule:  # fmt: skip
    """A model as a `torch.fx.GraphModule` with named parameters, for a loop of one's own. Raises SpecError."""
    from .lower.module import module as lower_module

    graph = model_graph(spec, model, size=size, dims=dims, options=options, training=training, dtype=dtype)
    foreign_packages([graph], ())
    return lower_module(graph)
