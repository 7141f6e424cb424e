"""Whether a checkpoint will load under a plan: asked of its headers and of the spec, before anything is launched.

In: a recipe with its plan, a checkpoint's folder. Out: what does not fit, in words; none if it loads. Torch is not
loaded: the tensors that a step keeps are leaves of its graph, and a safetensors header is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..compiler import pipeline
from ..compiler.base.diagnostic import SpecError
from ..compiler.cost.memory import STORED
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.recipe import Plan, Recipe
from ..compiler.ir.graph import Graph
from ..compiler.ir.layout import Mesh
from ..runtime.fault import RuntimeFault
from ..runtime.program import Initializer, Parameter, State
from ..runtime.saved import SCALARS, Piece, Scalars, begins, differences, incomplete, latest, pieces, read_scalars
from .mesh import stages_of


@dataclass(frozen=True, slots=True)
class Answer:
    """`faults`: why it does not load; `notes`: what changes when it does."""

    path: Path
    scalars: Scalars | None
    tensors: int
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


def loads(spec: Spec, recipe: Recipe, folder: Path) -> Answer:
    """Whether a checkpoint (or the newest of a folder, or of a run's) loads. Raises SpecError for a faulty recipe."""
    steps = pipeline.step_graphs(spec, recipe)
    wanted = stored([*steps.values(), pipeline.predict_graph(spec, recipe)])
    try:
        path = _found(folder)
        scalars, parts = read_scalars(path), pieces(path)
    except RuntimeFault as fault:
        return Answer(folder, None, len(wanted), (fault.message,))
    held = {name: item for name, item in wanted.items() if not begins(item, scalars)}
    faults = [*differences(held, scalars.tensors, whole=True), *_missing(held, scalars, parts)]
    faults += _laid(spec, recipe)
    notes = [
        f"{name}: {item.dtype} here, {parts[name][0].dtype} there"
        for name, item in held.items()
        if _differ(item, parts)
    ]
    if len(held) < len(wanted):
        notes.append(f"{len(wanted) - len(held)} tensors begin as declared: the checkpoint was imported")
    return Answer(path, scalars, len(wanted), tuple(faults), tuple(notes))


def stored(graphs: list[Graph]) -> dict[str, Parameter | State]:
    """What a build of these graphs keeps across steps, by name, with global shapes."""
    found: dict[str, Parameter | State] = {}
    for node in (node for graph in graphs for node in graph if node.op in STORED):
        out = node.outs[0]
        sizes, dtype = tuple(dim.size or 0 for dim in out.dims), out.dtype.value
        start = Initializer(str(cast("tuple[object, ...]", node.attrs["init"])[0]))
        names = tuple(dim.name for dim in out.dims)
        made = (
            Parameter(node.id, sizes, names, dtype, start)
            if node.op == "parameter"
            else State(node.id, sizes, dtype, start)
        )
        found.setdefault(node.id, made)
    return found


def _found(folder: Path) -> Path:
    """The checkpoint itself, the newest beside it, or the newest of a run's folder. Raises `RuntimeFault` E0510."""
    if (folder / SCALARS).is_file():
        return folder
    return latest(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder)


def _missing(
    held: Mapping[str, Parameter | State], scalars: Scalars, parts: Mapping[str, list[Piece]]
) -> Iterator[str]:
    """Tensors that the list names and the files do not hold, or not whole."""
    for name, item in held.items():
        if name in scalars.tensors and list(item.shape) == scalars.tensors[name]:
            if name not in parts:
                yield f"{name} is listed, and in no file"
            elif incomplete(item.shape, parts[name]):
                yield f"{name} is in {len(parts[name])} parts that do not make the whole"


def _differ(item: Parameter | State, parts: Mapping[str, list[Piece]]) -> bool:
    return item.name in parts and parts[item.name][0].dtype != item.dtype


def _laid(spec: Spec, recipe: Recipe) -> list[str]:
    """Why the plan's mesh cannot be laid out, or the model not be cut into its stages."""
    plan = recipe.plan or Plan()
    if Mesh(plan.mesh).devices == 1:
        return []
    try:
        stages_of(spec, recipe, plan, pipeline.partitioned_step(spec, recipe, plan))
    except SpecError as fault:
        return [f"the plan itself cannot be: {one.title}" for one in fault.diagnostics]
    return []


def plainly(answer: Answer) -> dict[str, object]:
    """The answer for JSON."""
    scalars = answer.scalars
    return {
        "loads": not answer.faults,
        "checkpoint": str(answer.path),
        "model": None if scalars is None else scalars.model,
        "step": None if scalars is None else scalars.step,
        "tensors": answer.tensors,
        "faults": list(answer.faults),
        "notes": list(answer.notes),
    }


def words(answer: Answer, plan: Plan | None) -> str:
    """The answer as people read it."""
    mesh = ", ".join(f"{name} {size}" for name, size in (plan or Plan()).mesh) or "one device"
    lines = []
    if answer.scalars is not None:
        lines.append(f"{answer.path}: {answer.scalars.model} after {answer.scalars.step} steps")
    if answer.faults:
        shown = [f"  {fault}" for fault in answer.faults[:12]]
        more = [f"  and {len(answer.faults) - 12} more"] if len(answer.faults) > 12 else []
        return "\n".join([*lines, f"it does not load on {mesh}:", *shown, *more])
    notes = [f"  {note}" for note in answer.notes[:4]]
    more = [f"  and {len(answer.notes) - 4} more, converted alike"] if len(answer.notes) > 4 else []
    return "\n".join([*lines, f"it loads on {mesh}: {answer.tensors} tensors", *notes, *more])
