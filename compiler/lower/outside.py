"""What stands outside of a program: parameters, states, data and the runtime's scalars, each with its name and shape.

In: graphs of one device and, on a mesh, the global shape and the layout of whatever is cut. Out: the records of
`runtime/program.py`. Names are logical, the same under every plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

import torch

from ...runtime.layout import ONE_DEVICE, Layout, Mesh
from ...runtime.program import Initializer, Input, Parameter, State, is_step
from ..ir.graph import Graph
from ..ir.types import Dim, Dims, DType, Node
from ..schedule.actions import Schedule
from ..schedule.stages import Stage
from .emit import TORCH_DTYPES, shape
from .kernels import ARGUMENTS
from .listing import Listing

RUNTIME_SCALARS = ("step", "seed", "start")


@dataclass(frozen=True, slots=True)
class Whole:
    """What a device's part of a value is a part of: the global shape (of a start its dim's), and how it is cut."""

    shape: tuple[int, ...]
    layout: Layout


Wholes = Mapping[str, Whole]
NO_WHOLES: Wholes = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Spread:
    """How a build lies on a mesh.

    wholes    of the leaves that are cut, by program and node id
    variants  the local graphs of the devices that differ from rank 0, by program
    classes   what each rank runs: 0 for the graphs of rank 0, n for `variants[n - 1]`; empty where all are alike
    stages    of a pipeline, what each class runs in place of those graphs, by program
    schedules of these programs
    """

    mesh: Mesh = ONE_DEVICE
    wholes: Mapping[str, Wholes] = field(default_factory=dict[str, Wholes])
    variants: tuple[Mapping[str, Graph], ...] = ()
    classes: tuple[int, ...] = ()
    stages: tuple[Mapping[str, Stage], ...] = ()
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])


ALONE = Spread()


def argument_name(node: Node) -> str:
    """The buffer of a leaf: a parameter's path, a port's name, a runtime scalar's name."""
    if node.op == "input":
        return str(node.attrs["name"])
    if node.op == "start":
        return f"start:{cast(Dim, node.attrs['dim']).name}"
    return node.op if node.op in RUNTIME_SCALARS else node.id


def inputs_of(found: Listing, wholes: Wholes = NO_WHOLES) -> list[Input]:
    """What the data and the runtime give."""
    inputs: dict[str, Input] = {}
    for node in found.nodes:
        if node.op not in ARGUMENTS or node.op in ("parameter", "state"):
            continue
        out, name = node.outs[0], argument_name(node)
        assert node.op != "input" or name not in inputs, f"two inputs are called {name}"
        source = "data" if node.op == "input" else name
        below = cast(Dim | None, node.attrs.get("below"))
        whole = wholes.get(node.id)
        inputs[name] = Input(
            name=name,
            shape=tuple(shape(out.dims)),
            dims=names(out.dims),
            dtype=out.dtype.value,
            source=source,
            below=None if below is None else below.size,
            whole=whole.shape if whole else _long(node),
            layout=whole.layout if whole else (),
        )
    return list(inputs.values())


def _long(node: Node) -> tuple[int, ...]:
    """Of a start the size of its dim: so far the next microbatch begins behind this one."""
    dim = node.attrs["dim"] if node.op == "start" else None
    return (dim.size,) if isinstance(dim, Dim) and dim.size is not None else ()


def names(dims: Dims) -> tuple[str, ...]:
    """The dims' names."""
    return tuple(dim.name for dim in dims)


def initializer(value: object) -> Initializer:
    """`("normal", 0.02)` as the runtime's."""
    kind, *arguments = cast(tuple[object, ...], value)
    return Initializer(str(kind), tuple(float(cast(float, a)) for a in arguments))


def _whole(spread: Spread, program: str, node: Node, known: Parameter | State | None) -> Whole:
    """A tensor over all devices: as this program has it cut, as another said already, or whole."""
    if node.id in spread.wholes.get(program, NO_WHOLES):
        return spread.wholes[program][node.id]
    return Whole(known.shape, known.layout) if known else Whole(tuple(shape(node.outs[0].dims)), ())


def parameters_of(graphs: Mapping[str, Graph], spread: Spread = ALONE) -> tuple[Parameter, ...]:
    """Every parameter of any graph, once, as it is over all devices. It is trained if a step trains it."""
    found: dict[str, Parameter] = {}
    steps = [graph for name, graph in graphs.items() if is_step(name)] or list(graphs.values())
    trained = {node.id for graph in steps for node in graph.nodes("parameter") if node.attrs["trained"]}
    for program, graph in graphs.items():
        for node in graph.nodes("parameter"):
            out = node.outs[0]
            whole = _whole(spread, program, node, found.get(node.id))
            found[node.id] = Parameter(
                name=node.id,
                shape=whole.shape,
                dims=tuple(dim.partition("/")[0] for dim in names(out.dims)),
                dtype=out.dtype.value,
                initializer=initializer(node.attrs["init"]),
                trained=node.id in trained,
                layout=whole.layout,
                host=node.host,
            )
    return tuple(found.values())


def states_of(graphs: Mapping[str, Graph], spread: Spread = ALONE) -> tuple[State, ...]:
    """Every state of any graph, once, as it is over all devices."""
    found: dict[str, State] = {}
    for program, graph in graphs.items():
        for node in graph.nodes("state"):
            out = node.outs[0]
            whole = _whole(spread, program, node, found.get(node.id))
            start = initializer(node.attrs["init"])
            found[node.id] = State(node.id, whole.shape, out.dtype.value, start, whole.layout, node.host)
    return tuple(found.values())


def dtype_of(name: str) -> torch.dtype:
    """The torch type that a program's dtype names."""
    return TORCH_DTYPES[DType(name)]
