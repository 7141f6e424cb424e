"""The order of everything, on one screen: a spec's text to graphs, graphs through the passes, a step to a build folder.

Nothing here decides anything: it calls the parts in order. torch is loaded only by `compile_recipe` and `module`, so
that whoever checks, shows or draws a spec never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .base.diagnostic import Diagnostic, SpecError
from .budget import Target, within_budget
from .cost.cluster import H100_NODES, Cluster
from .cost.table import Table
from .devices import factored, laid_out, machines, of_stages, partitioned, recipe_cluster, wishes_of
from .elaborate import check
from .elaborate.apply import Functions
from .elaborate.causality import foresight
from .elaborate.load import Spec, load
from .elaborate.loss import elaborate_loss
from .elaborate.models import BATCH, elaborate_model
from .elaborate.plain import plain
from .elaborate.recipe import Plan, Recipe, Recompute
from .ir.graph import Graph
from .ir.layout import PIPE, Mesh
from .ir.levels import LOSS, MODEL
from .ir.types import DType
from .language.parse import read_source
from .offloaded import offloaded
from .partition import kept
from .partition.choices import Wishes
from .partition.decide import Decision
from .partition.impossible import idle_axes
from .passes import Pass, run_passes
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
from .record import exported, foreign_packages, predictions
from .room import Asked, laid_within, stages_within
from .schedule.forms import TOKEN_SLICES, parse_form
from .schedule.placing import Pipeline

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..runtime.program import Build
    from .lower.footprint import Footprint
    from .lower.outside import Spread

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
    return Rematerialize(
        policy, wanted.kind if wanted.kind in LAYERS else "none", tuple(one.text for one in wanted.paths)
    )


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
            recipe.microbatches == 1,
        ),
        Microbatch(recipe.microbatches),
        Simplify(),
    ]


def step_graph(
    spec: Spec, recipe: Recipe, after: After | None = None, device: str = "cpu", keep: Collection[str] = (),
    cluster: Cluster | None = None, table: Table | None = None,
) -> Graph:  # fmt: skip
    """The whole training step of a recipe; of several updates that take turns, the first. Raises SpecError.

    `keep` names values of the forward that stay though nothing reads them (see `elaborate_loss`). By the cluster (else
    the recipe's) and the table it is decided what a plan's budget computes again.
    """
    turn = recipe.turns[0]
    return _step(spec, turn, step_passes(spec, turn, device), Target(device, cluster, table), keep, after)


def unfused_step(
    spec: Spec, recipe: Recipe, device: str = "cpu", keep: Collection[str] = (), cluster: Cluster | None = None,
    table: Table | None = None,
) -> Graph:  # fmt: skip
    """The step of a recipe that is one turn, its loss apart from the head: so both can be cut along the vocabulary."""
    passes = step_passes(spec, recipe, device, fuse_loss=False)
    return _step(spec, recipe, passes, Target(device, cluster, table), keep)


def _step(
    spec: Spec, turn: Recipe, passes: list[Pass], target: Target, keep: Collection[str], after: After | None = None
) -> Graph:
    loss, _ = elaborate_loss(spec, turn, keep=keep)
    target = replace(target, cluster=target.cluster or recipe_cluster(spec, turn))
    return run_passes(loss, within_budget(loss, passes, turn, target), LOSS, after)


def partitioned_step(
    spec: Spec, recipe: Recipe, plan: Plan, *, cluster: Cluster | None = None, device: str = "cpu"
) -> Decision:
    """The training step laid out on the plan's mesh, its loss fused with the head where that takes less time.

    Priced on the cluster, else on the recipe's, else on H100s. Raises SpecError where a wish cannot be fulfilled.
    """
    turn = recipe.turns[0]
    steps = [step_graph(spec, turn, device=device, cluster=cluster), unfused_step(spec, turn, device, cluster=cluster)]
    priced, limit = machines(Mesh(plan.mesh), plan, cluster or recipe_cluster(spec, recipe))
    mesh = Mesh(plan.mesh)
    held = of_stages(limit, mesh, plan)
    return partitioned(steps, mesh.without(PIPE), wishes_of(plan), priced, held, _runs_whole(mesh, plan))


def _runs_whole(mesh: Mesh, plan: Plan) -> bool:
    """Whether a device runs all of the step, and holds what that needs."""
    return PIPE not in mesh.names and not plan.offload


def step_graphs(
    spec: Spec, recipe: Recipe, device: str = "cpu", keep: Collection[str] = (), cluster: Cluster | None = None,
    table: Table | None = None,
) -> dict[str, Graph]:  # fmt: skip
    """The program of each update of a step, by name, in the order in which they run. Raises SpecError."""
    steps = {
        turn.program: step_graph(spec, turn, device=device, keep=keep, cluster=cluster, table=table)
        for turn in recipe.turns
    }
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
    from .lower.stages import check_dumped
    from .plan.flights import in_flight

    steps = step_graphs(spec, recipe, device, dump, cluster, table)
    graphs = {**steps, "evaluate": evaluate_graph(spec, recipe), PREDICT: predict_graph(spec, recipe)}
    packages = foreign_packages(graphs.values(), recipe.kernels)
    foretold = predictions(steps, recipe)
    record = {**plain(recipe), "sees_ahead": foresight(graphs[PREDICT]), "export": exported(spec, recipe)}
    plan = recipe.plan or Plan()
    mesh, wishes = mesh or Mesh(plan.mesh), wishes or wishes_of(plan)
    inner, stages = mesh.without(PIPE), dict(mesh.axes).get(PIPE, 1)
    priced = machines(mesh, plan, cluster or recipe_cluster(spec, recipe))

    def built(chosen: Mapping[str, Decision], limit_bytes: int | None = None) -> Build:
        step = next(iter(chosen.values()), None)
        here, lying = _lying(graphs, chosen, inner, mesh, plan, priced, dump)
        if stages > 1:
            check_dumped(lying, steps, dump)
        here, lying = offloaded(here, lying, plan.offload, priced[0])
        build = lower(
            here, record, foretold, folder, device=device, dump=dump, files=None if step is None else kept.files(step),
            kernels=packages, spread=lying, table=table, limit_bytes=limit_bytes,
        )  # fmt: skip
        if warn is not None and step is not None:
            warn(idle_axes(step.graph, step.mesh))
        return build

    if inner.devices == 1:
        return built({})
    ways = {name: [graph] for name, graph in graphs.items() if name != PREDICT}
    for turn in recipe.turns:
        ways[turn.program].append(unfused_step(spec, turn, device, dump, cluster, table))
    inner, wishes = factored(next(iter(steps.values())), inner, wishes)
    if _runs_whole(mesh, plan):
        return built(laid_within(ways, inner, wishes, *priced, device))
    held, flying = of_stages(priced[1], mesh, plan), in_flight(plan.schedule, stages, recipe.microbatches)

    def laid(asked: Asked) -> dict[str, Decision]:
        wanted = replace(wishes, sparing=asked.sparing)
        return laid_out(ways, inner, wanted, priced[0], held, False, asked.lasting_bytes, asked.flying)

    return stages_within(laid, built, held, stages, flying)


def _lying(
    graphs: Mapping[str, Graph], chosen: Mapping[str, Decision], inner: Mesh, mesh: Mesh, plan: Plan,
    priced: tuple[Cluster, int | None], dump: Sequence[str],
) -> tuple[Mapping[str, Graph], Spread]:  # fmt: skip
    """A build's graphs on one device, and how they lie on the mesh: as chosen on its `inner` axes, then in stages."""
    from .lower.outside import ALONE
    from .lower.spread import spread
    from .lower.stages import piped

    here, lying = graphs, ALONE
    if chosen:
        laid = {name: decision.graph for name, decision in chosen.items()}
        here, lying = spread({**laid, PREDICT: graphs[PREDICT]}, inner)
    if dict(mesh.axes).get(PIPE, 1) > 1:
        trained = {name: graph for name, graph in here.items() if name != PREDICT}
        wanted = Pipeline(plan.schedule, plan.balance, *priced, plan.offload)
        lying = piped(trained, lying, inner.across(PIPE, mesh), wanted, dump)
    return here, lying


def step_footprint(spec: Spec, recipe: Recipe, *, device: str = "cpu") -> Footprint:
    """What a recipe's step occupies when it runs: the peak, its owners, and its course. Raises SpecError.

    Of several updates that take turns, the one that reaches highest.
    """
    from .lower.build import graph_footprint
    from .lower.outside import ALONE

    kinds, cluster = (recipe.plan or Plan()).offload, recipe_cluster(spec, recipe) or H100_NODES
    steps, _ = offloaded(step_graphs(spec, recipe, device), ALONE, kinds, cluster)
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
