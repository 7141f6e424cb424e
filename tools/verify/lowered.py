"""The last forms: the lowered programs in float64, every device of the mesh in this process.

In: a form that the reference has run, on one device or on a mesh, and for stages of a pipeline what the plan says of
it. Out: what each device's program gives and leaves, held to the reference's values of the same device (each stage to
those of the whole chain); where they differ, the first value that does, which is found by asking the programs for their
values. Initial weights and random numbers are drawn by the runtime, bit for bit alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ...compiler.cost.cluster import Cluster
from ...compiler.interpret import Trace
from ...compiler.ir.graph import DUMP, Graph
from ...compiler.ir.layout import Coordinate, Mesh
from ...compiler.lower.build import compile_graphs
from ...compiler.lower.outside import ALONE
from ...compiler.lower.spread import spread
from ...compiler.lower.stages import piped
from ...compiler.offloaded import offloaded
from ...compiler.ops.definition import Array
from ...compiler.schedule.placing import Pipeline
from ...runtime.execute import DTYPES, Store
from ...runtime.folder import executable
from ...runtime.state import initial_store, tensors_of
from ...runtime.virtual import Cluster as Devices
from ..audit import doubled
from .forms import Alone, OnMesh
from .values import STEP, Gap, Value, distance, is_drawn, microbatches_of, somewhere

ONE = Mesh(())
PROGRAM = "step"
_NOT_ASKED = frozenset({"parameter", "state", "input", "constant", "start", "step", "seed", "extent", "assign"})


@dataclass(frozen=True)
class Device:
    """One device: the graph that it runs, and what the reference has for it."""

    graph: Graph
    trace: Trace


@dataclass(frozen=True)
class Stages:
    """How a pipeline cuts a graph. mesh: with its axis; first: the program whose times place the blocks of all, where
    that is another."""

    mesh: Mesh
    wanted: Pipeline
    first: Graph | None = None


@dataclass(frozen=True)
class Hosting:
    """What lies on the host (`optimizer`, `activations`), as its copies are priced on these machines."""

    kinds: tuple[str, ...]
    cluster: Cluster


@dataclass(frozen=True)
class Lowered:
    """A form lowered. graph: for all devices; stages: of a pipeline, which cuts it; program: what it is in a build;
    hosting: of one that lays some of it on the host."""

    before: Alone | OnMesh
    name: str = "lower"
    stages: Stages | None = None
    program: str = PROGRAM
    hosting: Hosting | None = None

    @property
    def graph(self) -> Graph:
        """For all devices."""
        return self.before.graph

    @property
    def inner(self) -> Mesh:
        """What values are cut over: the mesh without the pipeline's axis."""
        return self.before.mesh if isinstance(self.before, OnMesh) else ONE

    @property
    def mesh(self) -> Mesh:
        """Where it runs."""
        return self.stages.mesh if self.stages else self.inner

    @cached_property
    def devices(self) -> dict[Coordinate, Device]:
        """Each device's graph (of a stage that of the whole chain) and its reference."""
        return {c: self._device(self.within(c)) for c in self.mesh.coordinates()}

    def _device(self, c: Coordinate) -> Device:
        if isinstance(self.before, Alone):
            return Device(self.before.graph, self.before.trace)
        return Device(self.before.local[c][0], self.before.traces[c])

    def within(self, c: Coordinate) -> Coordinate:
        """Where a device stands among those of its stage."""
        return tuple(at for axis, at in zip(self.mesh.names, c, strict=True) if axis in self.inner.names)

    @cached_property
    def cluster(self) -> Devices:
        """The programs."""
        return self._asking(())

    def _asking(self, asked: Sequence[str]) -> Devices:
        """The programs, with some values of theirs as outputs."""
        first = self.stages.first if self.stages else None
        wide = {name: doubled(graph) for name, graph in ((PROGRAM, first), (self.program, self.graph)) if graph}
        local, lying = (wide, ALONE) if self.inner == ONE else spread(wide, self.inner)
        if self.stages is not None:
            lying = piped(local, lying, self.stages.mesh, self.stages.wanted, asked)
        if self.hosting is not None:
            local, lying = offloaded(local, lying, self.hosting.kinds, self.hosting.cluster)
        return Devices(executable(*compile_graphs(local, {}, {}, spread=lying, dump=asked)))

    def run(self, asked: Sequence[str] = ()) -> tuple[list[dict[str, torch.Tensor]], list[Store]]:
        """What each device gives, and what it is left with."""
        ours, leaves = self._asking(asked) if asked else self.cluster, self.before.leaves
        stored = {name: item.dtype for name, item in tensors_of(ours.build).items() if name in leaves}
        whole = {name: _tensor(leaves[name], dtype) for name, dtype in stored.items()}
        stores = ours.split(whole)
        inputs = {str(node.attrs["name"]): node.id for node in self.graph.nodes("input")}
        types = {i.name: i.dtype for i in ours.build.programs[self.program].inputs if i.source == "data"}
        parts = microbatches_of(self.graph, leaves) or [leaves]
        data = [{name: _tensor(part[inputs[name]], kind) for name, kind in types.items()} for part in parts]
        return ours.run(self.program, stores, data, STEP, int(leaves["seed"])), stores

    # ---- against the reference

    def results(
        self, outputs: Sequence[Mapping[str, torch.Tensor]], stores: Sequence[Store]
    ) -> Iterator[tuple[str, Gap]]:
        """Every output and every tensor that is left, of each device, by name."""
        for rank, (c, device) in enumerate(self.devices.items()):
            last = device.trace.parts[-1]
            for name, use in device.graph.outputs.items():
                yield name, self._gap(c, use.value, _array(outputs[rank][name]), last[use.value])
            for node in device.graph.nodes("assign"):
                target = str(node.attrs["target"])
                if target not in stores[rank]:
                    continue  # another stage has it
                found, wanted = _array(stores[rank][target]), device.trace.results[target]
                yield target, self._gap(c, (target, 0), found, wanted)

    def first_wrong(self, most: Mapping[str, float]) -> Gap | None:
        """The first value that a device computes otherwise, of all that it is asked for at once.

        A program that is asked for a value may not overwrite it: where the fault is gone then, it is asked for fewer.
        """
        names = self._askable()
        for count in (1, 4, 16):
            each = -(-len(names) // count)
            for at in range(0, len(names), each):
                found = self._asked(names[at : at + each], most)
                if found is not None:
                    return found
        return None

    def _askable(self) -> list[str]:
        every = [device.graph for device in self.devices.values()]
        return [node.id for node in every[0] if node.op not in _NOT_ASKED and all(node.id in one for one in every)]

    def _asked(self, names: Sequence[str], most: Mapping[str, float]) -> Gap | None:
        outputs, _ = self.run(names)
        for name in names:
            for rank, (c, device) in enumerate(self.devices.items()):
                value = (name, 0)
                wanted = device.trace.parts[-1].get(value)
                if wanted is None or DUMP + name not in outputs[rank]:
                    continue
                gap = self._gap(c, value, _array(outputs[rank][DUMP + name]), wanted)
                if gap.error > most.get(name, ALLOWED_HERE):
                    return gap
        return None

    def _gap(self, c: Coordinate, value: Value, found: Array, wanted: Array) -> Gap:
        place = " ".join(f"{axis} {at}" for axis, at in zip(self.mesh.names, c, strict=True))
        return somewhere(Gap(value, distance(found, wanted), wanted, found), f"device {place}" if place else "")


ALLOWED_HERE = 1e-8  # of a value on the way, which nobody asked whether it is well-conditioned


# ---- what is drawn


def weights_drawn(lowered: Lowered) -> tuple[int, list[str]]:
    """How many tensors begin bit for bit as on one device, and those that do not."""
    cluster, seed = lowered.cluster, int(lowered.before.leaves["seed"])
    whole = initial_store(cluster.build, seed)
    own = [initial_store(cluster.build, seed, rank=rank) for rank in range(lowered.mesh.devices)]
    cut = cluster.split(whole)
    names = list(whole)
    wrong = [n for n in names if not all(_same(a.get(n), b.get(n)) for a, b in zip(own, cut, strict=True))]
    return len(names) - len(wrong), wrong


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Bit for bit; or neither is there, on a stage that has no part of it."""
    return one is other if one is None or other is None else torch.equal(one, other)


def masks_drawn(lowered: Lowered, alone: Alone) -> tuple[int, list[str]]:
    """How many random values are bit for bit those that one device draws, lowered too, and those that are not."""
    local = next(iter(lowered.devices.values())).graph
    names = [n.id for n in alone.graph if is_drawn(n) and n.id in lowered.graph and n.id in local]
    if not names or lowered.mesh == ONE:
        return len(names), []
    (whole,), _ = Lowered(alone).run(names)
    outputs, _ = lowered.run(names)
    wrong: dict[str, None] = {}
    for rank, c in enumerate(lowered.devices):
        for name in names:
            node, mine = lowered.graph[name], whole[DUMP + name]
            if node.layouts:
                mine = mine[node.layouts[0].slices(node.outs[0].dims, lowered.inner, lowered.within(c))]
            found = outputs[rank].get(DUMP + name)
            if found is not None and not torch.equal(mine, found):
                wrong[name] = None
    return len(names) - len(wrong), list(wrong)


def _tensor(value: Array, dtype: str) -> torch.Tensor:
    return torch.tensor(value, dtype=DTYPES[dtype])


def _array(value: torch.Tensor) -> Array:
    return (value.double() if value.is_floating_point() else value).numpy()
