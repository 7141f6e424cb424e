"""What nodes and edges are made of: dims, dtypes, tensor types, uses, phases, layer facts, provenance.

Everything here is a frozen value. A dim is its declaration: its name is unique within a graph (a block's own dim that
clashes is qualified by its path, `blocks.attn.K`), and a node labels the axes of what it reads with dims of its own
choice, so that renaming an axis (`x[T -> S]`) costs nothing and needs no node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .layout import Layout


class DType(Enum):
    """Element type of a tensor."""

    BOOL = "bool"
    U8 = "u8"
    I32 = "i32"
    I64 = "i64"
    BF16 = "bf16"
    F16 = "f16"
    F32 = "f32"
    F64 = "f64"

    __hash__ = object.__hash__  # of an Enum it is computed, and types are keys everywhere

    @property
    def itemsize_bytes(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE_BYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether gradients may flow through values of this type."""
        return self in _FLOATS


_ITEMSIZE_BYTES = MappingProxyType(
    {
        DType.BOOL: 1,
        DType.U8: 1,
        DType.I32: 4,
        DType.I64: 8,
        DType.BF16: 2,
        DType.F16: 2,
        DType.F32: 4,
        DType.F64: 8,
    }
)
_FLOATS = frozenset({DType.BF16, DType.F16, DType.F32, DType.F64})


@dataclass(frozen=True, slots=True)
class Dim:
    """A named axis. `size` is None while the dim is free (batch, T before a recipe binds them). `runs`: by what its
    members are sorted, where they are: then an axis of a mesh cuts it where the parts of that begin."""

    name: str
    size: int | None
    runs: Runs | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # which tells the dims of a graph apart

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Runs:
    """The members of a dim are pairs of something with a member of `by`, `each` of them for all that is paired, in runs
    of equal members of `by`, which ascend; so in each of `lists` (the names of the dims before it). `part`: they are
    what one device has, whose size only the data says; the dim's is the most."""

    by: Dim
    each: int
    lists: tuple[str, ...]
    part: bool = False


Dims = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """What a value is: its axes, outermost first, and its element type."""

    dims: Dims
    dtype: DType


@dataclass(frozen=True, slots=True)
class Use:
    """An edge: output `output` of node `node`, its axes labelled, position by position, with the reader's dims.

    The labels may differ from the producer's dims (a rename) but agree with them in number and size.
    """

    node: str
    output: int
    dims: Dims
    dtype: DType

    @property
    def value(self) -> tuple[str, int]:
        """The value read, whatever its axes are called here."""
        return (self.node, self.output)

    @property
    def type(self) -> TensorType:
        """The value's type under the reader's labels."""
        return TensorType(self.dims, self.dtype)

    def relabel(self, names: Mapping[Dim, Dim]) -> Use:
        """The same value with some axes called otherwise: x[T -> S]."""
        return Use(self.node, self.output, tuple(names.get(d, d) for d in self.dims), self.dtype)


class Phase(Enum):
    """When a node runs: `PREPARE` and `UPDATE` once a step, `FORWARD` and `BACKWARD` once a microbatch."""

    PREPARE = "prepare"
    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Layer:
    """The fact that a node belongs to instance `index` of the repetition at path `chain`."""

    chain: str
    index: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The place in a spec (one-based line) that a node came from."""

    file: str
    line: int


# What an attribute may hold: plain data, so that a graph prints to text and reads back.
Attr = bool | int | float | str | None | Dim | DType | tuple["Attr", ...]


def dims_in(value: Attr) -> Iterator[Dim]:
    """Every dim that an attribute holds, in order."""
    if isinstance(value, Dim):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from dims_in(item)


def with_dims(value: Attr, names: Mapping[Dim, Dim]) -> Attr:
    """The attribute with some dims replaced."""
    if isinstance(value, Dim):
        return names.get(value, value)
    return tuple(with_dims(item, names) for item in value) if isinstance(value, tuple) else value


NO_ATTRS: Mapping[str, Attr] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied.

    id       unique and readable: the instance path and the variable's name (`blocks.0.attn.q`), or the operator's
    op       the operator's registered name; its rules are found in `ops.registry`
    uses     what it reads, operand by operand
    outs     the type of each result
    attrs    the operator's static arguments
    body     for a kernel function, the key in `Graph.bodies` of the graph that is its meaning
    path     the instance that it belongs to (`blocks.0.attn`), the owner in every report
    origin   where it was written, innermost first, then the calls that led there
    layouts  once it is partitioned, how each result lies on the mesh
    host     whether it runs on the device's host, and its results lie there
    """

    id: str
    op: str
    uses: tuple[Use, ...]
    outs: tuple[TensorType, ...]
    attrs: Mapping[str, Attr] = field(default_factory=lambda: NO_ATTRS)
    phase: Phase = Phase.FORWARD
    body: str | None = None
    path: str = ""
    layer: Layer | None = None
    origin: tuple[Origin, ...] = ()
    layouts: tuple[Layout, ...] = ()
    host: bool = False

    def out(self, index: int = 0) -> Use:
        """Result `index` as an edge, its axes called as the producer calls them."""
        return Use(self.id, index, self.outs[index].dims, self.outs[index].dtype)

    def laid(self, uses: tuple[Use, ...], layouts: tuple[Layout, ...]) -> Node:
        """The node as it lies on a mesh: `replace`, in a quarter of its time, for every node of a step."""
        return Node(
            self.id, self.op, uses, self.outs, self.attrs, self.phase, self.body, self.path, self.layer, self.origin,
            layouts, self.host,
        )  # fmt: skip
