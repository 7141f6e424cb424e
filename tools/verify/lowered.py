"""The last form: the lowered programs in float64, every device of the mesh in this process.

In: a form that the reference has run, on one device or on a mesh. Out: what each device's program gives and leaves,
held to the reference's values of the same device; where they differ, the first value that does, which is found by
asking the programs for their values. Initial weights and random numbers are drawn by the runtime, bit for bit alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ...compiler.interpret import Trace
from ...compiler.ir.graph import DUMP, Graph
from ...compiler.ir.layout import Coordinate, Mesh
from ...compiler.lower.build import compile_graphs
from ...compiler.lower.outside import ALONE
from ...compiler.lower.spread import spread
from ...compiler.ops.definition import Array
from ...runtime.execute import DTYPES, Store
from ...runtime.folder import executable
from ...runtime.state import initial_store, tensors_of
from ...runtime.virtual import Cluster
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
class Lowered:
    """A form lowered. graph: for all devices; mesh: theirs, or of one."""

    before: Alone | OnMesh
    name: str = "lower"

    @property
    def graph(self) -> Graph:
        """For all devices."""
        return self.before.graph

    @property
    def mesh(self) -> Mesh:
        """Where it runs."""
        return self.before.mesh if isinstance(self.before, OnMesh) else ONE

    @cached_property
    def devices(self) -> dict[Coordinate, Device]:
        """Each device's graph and its reference."""
        if isinstance(self.before, Alone):
            return {(): Device(self.before.graph, self.before.trace)}
        return {c: Device(self.before.local[c][0], one) for c, one in self.before.traces.items()}

    @cached_property
    def cluster(self) -> Cluster:
        """The programs."""
        return self._asking(())

    def _asking(self, asked: Sequence[str]) -> Cluster:
        """The programs, with some values of theirs as outputs."""
        wide = doubled(self.graph)
        local, lying = ({PROGRAM: wide}, ALONE) if self.mesh == ONE else spread({PROGRAM: wide}, self.mesh)
        return Cluster(executable(*compile_graphs(local, {}, {}, spread=lying, dump=asked)))

    def run(self, asked: Sequence[str] = ()) -> tuple[list[dict[str, torch.Tensor]], list[Store]]:
        """What each device gives, and what it is left with."""
        ours, leaves = self._asking(asked) if asked else self.cluster, self.before.leaves
        whole = {name: _tensor(leaves[name], item.dtype) for name, item in tensors_of(ours.build).items()}
        stores = ours.split(whole)
        inputs = {str(node.attrs["name"]): node.id for node in self.graph.nodes("input")}
        types = {i.name: i.dtype for i in ours.build.programs[PROGRAM].inputs if i.source == "data"}
        parts = microbatches_of(self.graph, leaves) or [leaves]
        data = [{name: _tensor(part[inputs[name]], kind) for name, kind in types.items()} for part in parts]
        return ours.run(PROGRAM, stores, data, STEP, int(leaves["seed"])), stores

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
    wrong = [n for n in names if not all(torch.equal(a[n], b[n]) for a, b in zip(own, cut, strict=True))]
    return len(names) - len(wrong), wrong


def masks_drawn(lowered: Lowered, alone: Alone) -> tuple[int, list[str]]:
    """How many random values are bit for bit those that one device draws, lowered too, and those that are not."""
    local = next(iter(lowered.devices.values())).graph
    names = [n.id for n in alone.graph if is_drawn(n) and n.id in lowered.graph and n.id in local]
    if not names or not isinstance(lowered.before, OnMesh):
        return len(names), []
    (whole,), _ = Lowered(alone).run(names)
    outputs, _ = lowered.run(names)
    wrong: dict[str, None] = {}
    for rank, c in enumerate(lowered.devices):
        for name in names:
            node, mine = lowered.graph[name], whole[DUMP + name]
            where = node.layouts[0].slices(node.outs[0].dims, lowered.mesh, c)
            if not torch.equal(mine[where], outputs[rank][DUMP + name]):
                wrong[name] = None
    return len(names) - len(wrong), list(wrong)


def _tensor(value: Array, dtype: str) -> torch.Tensor:
    return torch.tensor(value, dtype=DTYPES[dtype])


def _array(value: torch.Tensor) -> Array:
    return (value.double() if value.is_floating_point() else value).numpy()
