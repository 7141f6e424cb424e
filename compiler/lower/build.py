"""The build folder: program.json, modules/*.py and a manifest of their hashes, written beside and renamed.

In: the graphs of a model (`step`, `evaluate`, `predict`, as asked for), the recipe as plain data, and predictions, to
which the lowering adds the step's peak of memory, which it alone knows. Out: a folder that runs without the compiler.
It is code: `runtime/folder.py` checks every hash before it imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.program import Build, Program, is_step
from ...runtime.program_json import to_json
from ..base.diagnostic import Diagnostic, SpecError
from ..cost.memory import Memory, Owner
from ..cost.table import Table
from ..ir.graph import Graph
from ..recompute.fit import in_mib
from ..schedule.stages import Stage
from .agreement import disagreements
from .footprint import ROUNDING_BYTES, Footprint, footprint, peak_bytes
from .held import held_of
from .library import Library
from .modules import Module
from .outside import ALONE, NO_WHOLES, Spread, parameters_of, states_of
from .program import lower_graph, lower_stage
from .timing import Part, StepTime, part_seconds, pipeline_seconds, step_time

MANIFEST = "manifest.json"
FEW_STAGES = 2  # are lowered all at once


def lower(
    graphs: Mapping[str, Graph],
    recipe: Mapping[str, Any],
    predictions: Mapping[str, float],
    folder: str | Path | None,
    *,
    device: str = "cpu",
    dump: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    spread: Spread = ALONE,
    kernels: Sequence[str] = (),
    table: Table | None = None,
    limit_bytes: int | None = None,
) -> Build:
    """Compile graphs and write the build folder (none if `folder` is None). Raises TooHigh, as `within` does.

    `dump` names values of the step to be kept as outputs; `files` are further texts for the folder (the plan). On a
    mesh the graphs are those of rank 0, and `spread` says how they lie on it. `kernels` are the packages that it calls,
    `table` what kernels take on this machine.
    """
    limit_bytes = recipe.get("budget_bytes") if limit_bytes is None else limit_bytes
    if limit_bytes is not None and len(spread.stages) > FEW_STAGES:
        within(_first_stage(graphs, device, spread), limit_bytes)
    build, sources = compile_graphs(graphs, recipe, predictions, device=device, dump=dump, spread=spread, table=table)
    build = replace(build, kernels=tuple(kernels))
    within(build.predictions, limit_bytes)
    if folder is not None:
        modules = {f"modules/{name}.py": text for name, text in sources.items()}
        write({"program.json": to_json(build), **modules, **(files or {})}, Path(folder))
    return build


class TooHigh(SpecError):
    """E0952: a step's peak is so many bytes above what a device may hold."""

    def __init__(self, diagnostic: Diagnostic, over_bytes: int) -> None:
        super().__init__(diagnostic)
        self.over_bytes = over_bytes


def within(foretold: Mapping[str, float], budget_bytes: int | None) -> None:
    """Raises TooHigh, which names the largest owners, where a step's peak is above a device's budget."""
    peak = int(foretold.get("peak_bytes", 0))
    if budget_bytes is not None and peak > budget_bytes:
        sizes = {owner.value: foretold[f"peak_bytes.{owner.value}"] for owner in Owner}
        whose = ", ".join(f"{name} {in_mib(sizes[name])}" for name in sorted(sizes, key=lambda n: -sizes[n])[:3])
        title = f"a step takes {in_mib(peak, up=True)} MiB, but the budget is {in_mib(budget_bytes)} MiB ({whose} MiB)"
        hint = "recompute = full, offload = optimizer, more microbatches"
        raise TooHigh(Diagnostic("E0952", title, hint=hint), peak - budget_bytes)


def _first_stage(graphs: Mapping[str, Graph], device: str, spread: Spread) -> dict[str, float]:
    """The peak of the stage that has most microbatches in flight, before the others are lowered: a pipeline that is too
    high is so there, mostly."""
    alone = replace(spread, stages=spread.stages[:1], classes=(0,) * len(spread.classes))
    build, library = _built(graphs, {}, device, (), alone)
    prints = [_footprint(build, name, library) for name in graphs if is_step(name)]
    return _peak(max((one.memory for one in prints), key=lambda memory: memory.peak_bytes))


def _peak(memory: Memory) -> dict[str, float]:
    """A peak and its owners, as a build foretells them."""
    owners = {f"peak_bytes.{owner.value}": memory.of(owner) for owner in Owner}
    return {"peak_bytes": memory.peak_bytes, **owners}


def compile_graphs(
    graphs: Mapping[str, Graph],
    recipe: Mapping[str, Any],
    predictions: Mapping[str, float],
    *,
    device: str = "cpu",
    dump: Sequence[str] = (),
    spread: Spread = ALONE,
    table: Table | None = None,
) -> tuple[Build, dict[str, str]]:
    """The build and the source of each of its modules by name.

    The peak that it foretells is that of its own step, on the device where it is highest, with its owners; its seconds,
    where a table is given, those of all its steps.
    """
    build, library = _built(graphs, recipe, device, dump, spread)
    foretold = dict(predictions)
    steps = [name for name in graphs if is_step(name)]
    if steps:
        ranks = sorted({build.classes.index(number) for number in build.classes}) or [0]
        prints = [_footprint(build, name, library, rank=rank) for name in steps for rank in ranks]
        highest = max((one.memory for one in prints), key=lambda memory: memory.peak_bytes)
        host = max(one.host_bytes for one in prints)
        foretold.update({"host_bytes": host} if host else {})
        foretold |= _peak(highest)
    if steps and table is not None:
        modules = {module.name: module for module in library.modules.values()}
        repeats = _repeats(recipe)
        parts = {name: _parts(build, name, modules, table) for name in steps if name in spread.schedules}
        times = {
            name: pipeline_seconds(parts[name], spread.schedules[name])  # messages are taken to be there at once
            if name in parts
            else step_time(build.programs[name], modules, table).seconds
            for name in steps
        }
        foretold |= {f"part_seconds.{part}": n for part, n in parts.get(steps[0], {}).items()}
        foretold["step_seconds"] = sum(seconds * repeats.get(name, 1) for name, seconds in times.items())
        foretold["timed_kernels"] = len(table.points)
    if spread.stages:
        for name in spread.stages[0]:
            found = disagreements(build, name)
            assert not found, f"{name} of our own pipeline: {found[0]}"
    sources = {module.name: module.source for module in library.modules.values()}
    return replace(build, predictions=foretold), sources


def _parts(build: Build, name: str, modules: Mapping[str, Module], table: Table) -> dict[str, float]:
    """One run of each part of a pipeline's stages."""
    ranks = sorted({build.classes.index(number) for number in build.classes})
    programs = (build.programs_of(rank)[name] for rank in ranks)
    known: dict[str, list[Part]] = {}  # stages share modules
    return part_seconds((program, step_time(program, modules, table, known)) for program in programs)


def _repeats(recipe: Mapping[str, Any]) -> dict[str, int]:
    """How often each program runs in a step, as the recipe says."""
    return {turn["program"]: turn["repeat"] for turn in recipe.get("turns", ())}


def graph_footprint(graph: Graph, device: str = "cpu", threads: int | None = None) -> Footprint:
    """What one run of a graph occupies, instruction by instruction, once it is lowered for a device."""
    build, library = _built({graph.name: graph}, {}, device, (), ALONE)
    return _footprint(build, graph.name, library, threads)


@dataclass(frozen=True, slots=True)
class Occupied:
    """peak_bytes: of the device that has most. seconds: of a run of each node, with what is fused into it; nothing
    where no table was given."""

    peak_bytes: int
    seconds: Mapping[str, float]


def occupied(name: str, step: Graph, library: Library, spread: Spread = ALONE, table: Table | None = None) -> Occupied:
    """What a step (rank 0's graph of it) takes where it lies as `spread` says, once it is lowered.

    Of steps that are compared most modules are the same: with one library they are made once.
    """
    build, _ = _built({name: step}, {}, library.device, (), spread, library)
    ranks = sorted({build.classes.index(number) for number in build.classes}) or [0]
    peak = max(_peak_bytes(build, name, library, rank) for rank in ranks)
    return Occupied(peak, {} if table is None else _timed(build, name, ranks, library, table))


def timed_nodes(
    name: str, step: Graph, library: Library, spread: Spread, table: Table, known: dict[str, list[Part]] | None = None
) -> Mapping[str, float]:
    """Seconds of a run of each node, as `occupied` has them. known: of the library's modules so far, on this table."""
    build, _ = _built({name: step}, {}, library.device, (), spread, library)
    return _timed(build, name, [0], library, table, known)


def _timed(
    build: Build, name: str, ranks: Sequence[int], library: Library, table: Table,
    known: dict[str, list[Part]] | None = None,
) -> dict[str, float]:  # fmt: skip
    modules = {module.name: module for module in library.modules.values()}
    seconds: dict[str, float] = {}
    for rank in ranks:
        found = defaultdict[str, float](float)
        for part in step_time(build.programs_of(rank)[name], modules, table, known).parts:
            found[part.place.rpartition(" ")[2]] += part.seconds / part.calls
        seconds = {**found, **seconds}
    return seconds


def graph_time(graph: Graph, table: Table, device: str = "cpu") -> StepTime:
    """How long one run of a graph takes, call by call, once it is lowered for a device."""
    build, library = _built({graph.name: graph}, {}, device, (), ALONE)
    modules = {module.name: module for module in library.modules.values()}
    return step_time(build.programs[graph.name], modules, table)


def _built(
    graphs: Mapping[str, Graph], recipe: Mapping[str, Any], device: str, dump: Sequence[str], spread: Spread,
    library: Library | None = None,
) -> tuple[Build, Library]:  # fmt: skip
    library = library or Library(device)
    if spread.stages:
        programs, *variants = [_pipelined(stages, library, spread) for stages in spread.stages]
        alone = {name: graph for name, graph in graphs.items() if name not in programs}
        programs |= {name: _program(name, graph, library, dump, spread) for name, graph in alone.items()}
    else:
        programs, *variants = [
            {name: _program(name, graph, library, dump, spread) for name, graph in local.items()}
            for local in (graphs, *spread.variants)
        ]
    name = next(iter(graphs.values())).name
    build = Build(
        name, parameters_of(graphs, spread), states_of(graphs, spread), programs, recipe=dict(recipe),
        mesh=spread.mesh, variants=tuple(variants), classes=spread.classes,
    )  # fmt: skip
    return build, library


def _program(name: str, graph: Graph, library: Library, dump: Sequence[str], spread: Spread) -> Program:
    wanted = [one for one in dump if one in graph] if is_step(name) else []
    return lower_graph(graph, library, wanted, tuple(spread.mesh.lengths), spread.wholes.get(name, NO_WHOLES))


def _pipelined(stages: Mapping[str, Stage], library: Library, spread: Spread) -> dict[str, Program]:
    """One stage's programs."""
    axes = spread.mesh.names
    return {name: lower_stage(stage, library, axes, spread.wholes[name]) for name, stage in stages.items()}


def _footprint(build: Build, name: str, library: Library, threads: int | None = None, rank: int = 0) -> Footprint:
    rounding = ROUNDING_BYTES[library.device.partition(":")[0]]
    program, held = build.programs_of(rank)[name], held_of(build, rank)
    return footprint(
        program, library, held, mesh=build.mesh, gloo=library.device == "cpu", threads=threads, rounding_bytes=rounding
    )


def _peak_bytes(build: Build, name: str, library: Library, rank: int) -> int:
    rounding = ROUNDING_BYTES[library.device.partition(":")[0]]
    program, held, gloo = build.programs_of(rank)[name], held_of(build, rank), library.device == "cpu"
    return peak_bytes(program, library, held, mesh=build.mesh, gloo=gloo, rounding_bytes=rounding)


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write a folder of texts with a manifest of their sha256; a crash leaves the old folder or the new one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, text in files.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(files.items())}
        (beside / MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=1) + "\n", encoding="utf-8")
        beside.chmod(0o755)
        _replace(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _replace(beside: Path, folder: Path) -> None:
    """A folder cannot be renamed over a full one: move the old one aside first."""
    if not folder.exists():
        os.replace(beside, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    os.replace(folder, aside / folder.name)
    os.replace(beside, folder)
    shutil.rmtree(aside, ignore_errors=True)
