"""From a graph to a program: segments in order, modules shared, buffers named and freed, instructions listed.

The walk knows of every live buffer its meta tensor: shape, strides, and whose memory it is a view of. From that follows
which inputs a call owns (its last reader, and nothing else alive lies in the same memory): those the module may write
over. Parameters, states, data, accumulators and what `prepare` leaves for the microbatches are never owned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from ...runtime.program import Allocate, Initializer, Input, Instruction, Parameter, Program, Run, State, is_step
from ..ir.graph import Graph
from ..ir.types import Dim, Dims, DType, Node, Phase, TensorType
from .emit import TORCH_DTYPES, Key, shape, storage
from .fuse import listing
from .kernels import ARGUMENTS
from .listing import Listing
from .modules import Argument, Module, emit, finish, identifier
from .segment import Segment, cut, literals, signature

RUNTIME_SCALARS = ("step", "seed", "start")


@dataclass
class Library:
    """The modules of a build, by what makes them the same."""

    device: str
    modules: dict[tuple[object, ...], Module] = field(default_factory=dict[tuple[object, ...], Module])
    names: set[str] = field(default_factory=set[str])

    def get(self, segment: Segment, arguments: Sequence[Argument]) -> Module:
        """The module for a segment that reads these tensors; emitted if it is new."""
        key = (signature(segment), layouts(arguments))
        if key not in self.modules:
            name = self._name(segment)
            emitter = emit(segment, arguments, self.device)
            self.modules[key] = finish(name, _title(segment), emitter)
        return self.modules[key]

    def _name(self, segment: Segment) -> str:
        wanted = segment.phase.value
        if segment.layer is not None:
            wanted = f"{identifier(segment.layer.chain)}_{wanted}"
        name, number = wanted, 1
        while name in self.names:
            number += 1
            name = f"{wanted}_{number}"
        self.names.add(name)
        return name


def _title(segment: Segment) -> str:
    if segment.layer is not None:
        return f"The {segment.phase.value} phase of one layer of `{segment.layer.chain}`."
    first, last = segment.nodes[0].id, segment.nodes[-1].id
    return f"Part of the {segment.phase.value} phase: from `{first}` to `{last}`."


def layouts(arguments: Sequence[Argument]) -> tuple[object, ...]:
    """Shapes, strides, common memory and ownership: what a module's text depends on."""
    memories = [storage(a.tensor) for a in arguments]
    return tuple(
        (
            tuple(a.tensor.shape),
            a.tensor.stride(),
            a.tensor.storage_offset(),
            a.tensor.dtype,
            memories.index(m),
            a.owned,
        )
        for a, m in zip(arguments, memories, strict=True)
    )


def lower_graph(graph: Graph, library: Library, dump: Sequence[str] = ()) -> Program:
    """The program of a graph whose dims are all bound. `dump` names values (node ids) to add to the outputs."""
    for name in dump:
        assert name in graph, f"no value is called {name}"
    return _Walk(listing(graph, dump), library).program()


class _Walk:
    """One pass over the segments."""

    def __init__(self, found: Listing, library: Library) -> None:
        self.listing = found
        self.library = library
        self.nodes = found.index()
        self.asked = found.asked()
        self.live: dict[Key, torch.Tensor] = {}
        self.lasting: set[int] = set()
        self.lists: dict[Phase, list[Instruction]] = {phase: [] for phase in Phase}

    def program(self) -> Program:
        """The instructions and what they need from outside."""
        segments = cut(self.listing)
        self.last = {key: i for i, segment in enumerate(segments) for key in segment.inputs}
        for node in self.listing.nodes:
            if node.op in ARGUMENTS:
                self._lasting((node.id, 0), node.outs[0])
        for key, kind in self.listing.accumulators.items():
            self._lasting(key, kind)
            dtype = kind.dtype.value
            self.lists[Phase.PREPARE].append(Allocate(self.buffer(key), tuple(shape(kind.dims)), dtype))
        phase = Phase.PREPARE
        for position, segment in enumerate(segments):
            if segment.phase is not phase:
                self._enter(phase, segment.phase)
                phase = segment.phase
            self._call(position, segment)
        return Program(
            inputs=tuple(inputs_of(self.listing)),
            prepare=tuple(self.lists[Phase.PREPARE]),
            microbatch=(*self.lists[Phase.FORWARD], *self.lists[Phase.BACKWARD]),
            update=tuple(self.lists[Phase.UPDATE]),
            outputs={name: self.buffer(use.value) for name, use in self.listing.outputs.items()},
            microbatches=self.listing.microbatches,
        )

    def _lasting(self, key: Key, kind: TensorType) -> None:
        tensor = torch.empty(shape(kind.dims), dtype=TORCH_DTYPES[kind.dtype], device="meta")
        self.live[key] = tensor
        self.lasting.add(storage(tensor))

    def _enter(self, old: Phase, new: Phase) -> None:
        """Microbatches read what `prepare` left again and again; the update is the last to read an accumulator."""
        if old is Phase.PREPARE:
            self.lasting.update(storage(tensor) for tensor in self.live.values())
        if new is Phase.UPDATE:
            self.lasting -= {storage(self.live[key]) for key in self.listing.accumulators}

    def _call(self, position: int, segment: Segment) -> None:
        frees = [key for key in segment.inputs if self._ends(key, position, segment.phase)]
        staying = {storage(tensor) for key, tensor in self.live.items() if key not in frees} | self.lasting
        arguments = [
            Argument(self.live[k], k in frees and storage(self.live[k]) not in staying) for k in segment.inputs
        ]
        module = self.library.get(segment, arguments)
        self.lists[segment.phase].append(
            Run(
                module=module.name,
                inputs=tuple(self.buffer(key) for key in segment.inputs),
                outputs=tuple(self.buffer(key) for key in segment.outputs),
                frees=tuple(self.buffer(key) for key in frees),
                literals=literals(segment),
                layer="" if segment.layer is None else f"{segment.layer.chain}.{segment.layer.index}",
            )
        )
        results = _results(module, arguments)
        for key in frees:
            del self.live[key]
        self.live.update(zip(segment.outputs, results, strict=True))

    def _ends(self, key: Key, position: int, phase: Phase) -> bool:
        """Whether this call is the last that may see the buffer."""
        if self.last[key] != position or key in self.asked:
            return False
        node = self.nodes[key[0]]
        if node.op in ARGUMENTS:
            return node.op == "input" and phase is not Phase.PREPARE
        if key in self.listing.accumulators:
            return phase is Phase.UPDATE
        early = node.phase is Phase.PREPARE and phase in (Phase.FORWARD, Phase.BACKWARD)
        return not early or self.listing.microbatches == 1

    def buffer(self, key: Key) -> str:
        """The name of the buffer that holds a value."""
        node = self.nodes[key[0]]
        if node.op in ARGUMENTS:
            return argument_name(node)
        return node.id if key[1] == 0 else f"{node.id}:{key[1]}"


def _results(module: Module, arguments: Sequence[Argument]) -> list[torch.Tensor]:
    """Meta tensors of a call's results, sharing memory as the module's own did."""
    fresh: dict[int, torch.Tensor] = {}
    found: list[torch.Tensor] = []
    for result in module.results:
        if result.storage < len(arguments):
            base = arguments[result.storage].tensor
        else:
            reach = result.offset + sum((n - 1) * s for n, s in zip(result.shape, result.stride, strict=True)) + 1
            base = fresh.setdefault(result.storage, torch.empty(0, dtype=result.dtype, device="meta"))
            if base.untyped_storage().nbytes() < reach * result.dtype.itemsize:
                base.untyped_storage().resize_(reach * result.dtype.itemsize)
        found.append(base.as_strided(result.shape, result.stride, result.offset))
    return found


# ---- what stands outside


def argument_name(node: Node) -> str:
    """The buffer of a leaf: a parameter's path, a port's name, a runtime scalar's name."""
    if node.op == "input":
        return str(node.attrs["name"])
    if node.op == "start":
        return f"start:{cast(Dim, node.attrs['dim']).name}"
    return node.op if node.op in RUNTIME_SCALARS else node.id


def inputs_of(found: Listing) -> list[Input]:
    """What the data and the runtime give."""
    inputs: dict[str, Input] = {}
    for node in found.nodes:
        if node.op not in ARGUMENTS or node.op in ("parameter", "state"):
            continue
        out, name = node.outs[0], argument_name(node)
        assert node.op != "input" or name not in inputs, f"two inputs are called {name}"
        source = "data" if node.op == "input" else name
        below = cast(Dim | None, node.attrs.get("below"))
        inputs[name] = Input(
            name=name,
            shape=tuple(shape(out.dims)),
            dims=names(out.dims),
            dtype=out.dtype.value,
            source=source,
            below=None if below is None else below.size,
        )
    return list(inputs.values())


def names(dims: Dims) -> tuple[str, ...]:
    """The dims' names."""
    return tuple(dim.name for dim in dims)


def initializer(value: object) -> Initializer:
    """`("normal", 0.02)` as the runtime's."""
    kind, *arguments = cast(tuple[object, ...], value)
    return Initializer(str(kind), tuple(float(cast(float, a)) for a in arguments))


def parameters_of(graphs: Mapping[str, Graph]) -> tuple[Parameter, ...]:
    """Every parameter of any graph, once. It is trained if a step trains it."""
    found: dict[str, Parameter] = {}
    steps = [graph for name, graph in graphs.items() if is_step(name)] or list(graphs.values())
    trained = {node.id for graph in steps for node in graph.nodes("parameter") if node.attrs["trained"]}
    for graph in graphs.values():
        for node in graph.nodes("parameter"):
            out = node.outs[0]
            found[node.id] = Parameter(
                name=node.id,
                shape=tuple(shape(out.dims)),
                dims=names(out.dims),
                dtype=out.dtype.value,
                initializer=initializer(node.attrs["init"]),
                trained=node.id in trained,
            )
    return tuple(found.values())


def states_of(graphs: Mapping[str, Graph]) -> tuple[State, ...]:
    """Every state of any graph, once."""
    found: dict[str, State] = {}
    for graph in graphs.values():
        for node in graph.nodes("state"):
            out = node.outs[0]
            found[node.id] = State(node.id, tuple(shape(out.dims)), out.dtype.value, initializer(node.attrs["init"]))
    return tuple(found.values())


def dtype_of(name: str) -> torch.dtype:
    """The torch type that a program's dtype names."""
    return TORCH_DTYPES[DType(name)]
