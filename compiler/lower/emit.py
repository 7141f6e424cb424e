"""Emission: IR nodes of one segment, one after another, become torch.fx nodes over plain tensors.

In: nodes in order, the values that they read from outside as tensors of the meta device (true shapes, strides and
storages), and which of those the segment owns. Out: a `torch.fx.Graph` of aten OpOverloads. Every fx node is run on
the meta device as it is written, so that layout and aliasing are facts, not guesses: a kernel rule asks `dies(i)` and
writes into operand i where nothing else will ever look at its memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from ..ir.types import Dim, Dims, DType, Node, Use
from .outcomes import Outcomes
from .views import Views, has_view, overlaps, storage

Value = fx.Node | bool | int | float
Key = tuple[str, int]
Rule = Callable[["Emitter", Node, Sequence[Value]], Sequence[Value | None]]

aten = torch.ops.aten

TORCH_DTYPES = {
    DType.BOOL: torch.bool,
    DType.U8: torch.uint8,
    DType.I32: torch.int32,
    DType.I64: torch.int64,
    DType.BF16: torch.bfloat16,
    DType.F16: torch.float16,
    DType.F32: torch.float32,
    DType.F64: torch.float64,
}


class AtMost(int):
    """A size that the data says when the program runs; this is the most. Views leave it to torch (-1)."""


def size(dim: Dim) -> int:
    """The size of a dim, which must be bound by now."""
    assert dim.size is not None, f"dim {dim.name} has no size; bind it before lowering"
    return AtMost(dim.size) if dim.runs is not None and dim.runs.part else dim.size


def shape(dims: Dims) -> list[int]:
    """The sizes of dims in order."""
    return [size(dim) for dim in dims]


def count(dims: Dims) -> int:
    """How many elements dims span."""
    sizes = shape(dims)
    product = math.prod(sizes)
    return AtMost(product) if any(isinstance(n, AtMost) for n in sizes) else product


def meta(value: Value) -> torch.Tensor:
    """The meta tensor of an emitted value."""
    assert isinstance(value, fx.Node), f"{value!r} is a literal, not a tensor"
    return cast(torch.Tensor, value.meta["val"])


def reads(node: Node) -> Sequence[Use]:
    """The operands whose values a node reads: of a write all but its target."""
    return node.uses[1:] if node.op == "lower.assign" else node.uses


@dataclass
class Lifetimes:
    """Who still needs what: `last` is the position of a value's last reader, `kept` what outlives the segment."""

    last: dict[Key, int] = field(default_factory=dict[Key, int])
    kept: frozenset[Key] = frozenset()

    @staticmethod
    def of(nodes: Sequence[Node], kept: frozenset[Key]) -> Lifetimes:
        """The lifetimes within a list of nodes."""
        last = {use.value: position for position, node in enumerate(nodes) for use in reads(node)}
        return Lifetimes(last, kept)

    def ends(self, key: Key, position: int) -> bool:
        """Whether nothing reads the value after `position`."""
        return key not in self.kept and self.last.get(key, -1) <= position


class Emitter:
    """What kernel rules write with.

    device      where generated code makes new tensors (`cpu`, `cuda`)
    functional  True where autograd will differentiate the result: nothing is overwritten
    outcomes    what kernels give, as far as that is known
    """

    def __init__(self, device: str, functional: bool, lifetimes: Lifetimes, outcomes: Outcomes | None = None) -> None:
        self.graph = fx.Graph()
        self.device = device
        self.functional = functional
        self.lifetimes = lifetimes
        self.outcomes = outcomes or Outcomes()
        self.values: dict[Key, Value] = {}
        self.literals: dict[str, tuple[fx.Node | int, ...]] = {}
        self.origin = ""
        self._holders: dict[int, set[Key]] = {}
        self._views = Views()
        self._ones: dict[tuple[int, DType], fx.Node] = {}
        self._node: Node | None = None
        self._position = 0
        self._borrowed: set[int] = set()

    # ---- values

    def argument(self, name: str, keys: Sequence[Key], tensor: torch.Tensor, owned: bool) -> fx.Node:
        """A tensor from outside that stands for `keys`; `owned` says that its memory may be written over."""
        node = self.graph.placeholder(name)
        node.meta["val"] = tensor
        self._views.saw(node)
        if not owned:
            self._borrowed.add(storage(tensor))
        for key in keys:
            self.bind(key, node)
        return node

    def attribute(self, path: str, key: Key, tensor: torch.Tensor) -> None:
        """A tensor that the module itself holds under a dotted path."""
        node = self.graph.create_node("get_attr", path)
        node.meta["val"] = tensor
        self._borrowed.add(storage(tensor))
        self.bind(key, node)

    def literal(self, node_id: str, names: Sequence[str]) -> None:
        """Integers from outside, for the node's rule to use."""
        numbers = tuple(self.graph.placeholder(name) for name in names)
        for number in numbers:
            number.meta["val"] = 0
        self.literals[node_id] = numbers

    def bind(self, key: Key, value: Value) -> None:
        """Say which emitted value an IR value is."""
        self.values[key] = value
        if isinstance(value, fx.Node):
            self._holders.setdefault(storage(meta(value)), set()).add(key)

    def emit(self, rule: Rule, node: Node, position: int) -> None:
        """Apply a node's rule and bind its results."""
        self._node, self._position = node, position
        results = rule(self, node, [self.values[use.value] for use in node.uses])
        assert len(results) == len(node.outs), f"{node.id}: kernel of {node.op} gives {len(results)} results"
        for index, (value, out) in enumerate(zip(results, node.outs, strict=True)):
            if value is None:
                assert not self.wanted(index), f"{node.id}: result {index} of {node.op} is wanted but not computed"
                continue
            if isinstance(value, fx.Node):
                found = meta(value)
                assert list(found.shape) == shape(out.dims), f"{node.id}: {node.op} gives {list(found.shape)}"
                self.bind((node.id, index), self.cast(value, TORCH_DTYPES[out.dtype]))
            else:
                self.bind((node.id, index), value)

    def wanted(self, output: int = 0) -> bool:
        """Whether anything reads this result of the node being emitted."""
        assert self._node is not None, "no node is being emitted"
        return not self.lifetimes.ends((self._node.id, output), self._position)

    def dies(self, operand: int) -> bool:
        """Whether the node being emitted may write over this operand's memory."""
        assert self._node is not None, "no node is being emitted"
        use = self._node.uses[operand]
        value = self.values[use.value]
        if self.functional or not isinstance(value, fx.Node):
            return False
        mine = storage(meta(value))
        others = [self.values[u.value] for i, u in enumerate(self._node.uses) if i != operand]
        if mine in self._borrowed or any(isinstance(o, fx.Node) and storage(meta(o)) == mine for o in others):
            return False
        if overlaps(meta(value)):
            return False
        return all(self.lifetimes.ends(key, self._position) for key in self._holders[mine])

    def written(self, target: fx.Node) -> None:
        """From here on a memory holds what was assigned to it: nothing else may lie there."""
        self._borrowed.add(storage(meta(target)))

    def displace(self, target: Value, but: frozenset[Key] = frozenset()) -> None:
        """Before a memory is written as a whole, whatever lies there and is read later moves out, `but` some values."""
        for key in sorted(self._holders[storage(meta(target))] - but):
            if not self.lifetimes.ends(key, self._position - 1):
                self.bind(key, self.call(aten.clone.default, self.values[key]))

    # ---- writing

    def call(self, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """One fx node, run on the meta device."""
        name = getattr(op, "__name__", "value").split(".")[0].strip("_")
        node = self.graph.create_node("call_function", op, _left_open(op, args), kwargs, name=name)
        node.meta["origin"] = self.origin
        node.meta["val"] = self._run_meta(op, args, kwargs)
        self._views.saw(node)
        return node

    def _run_meta(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op in NO_RESULT:
            return None
        given = {key: "meta" if key == "device" else _on_meta(value) for key, value in kwargs.items()}
        return self.outcomes.of(op, tuple(map(_on_meta, args)), given)

    def calls(self, op: Any, *args: Any, **kwargs: Any) -> tuple[fx.Node, ...]:
        """One fx node with several results."""
        node = self.call(op, *args, **kwargs)
        return tuple(self._item(node, index) for index in range(len(node.meta["val"])))

    def _item(self, node: fx.Node, index: int) -> fx.Node:
        item = self.graph.create_node("call_function", operator.getitem, (node, index), name=f"{node.name}_{index}")
        item.meta["origin"] = self.origin
        item.meta["val"] = node.meta["val"][index]
        self._views.saw(item)
        return item

    def tensor(self, value: Value, dtype: DType) -> fx.Node:
        """A literal as a tensor without dims; tensors as they are."""
        return value if isinstance(value, fx.Node) else self.full((), value, dtype)

    def full(self, dims: Dims, value: bool | int | float, dtype: DType) -> fx.Node:
        """A new tensor, filled."""
        return self.call(aten.full.default, shape(dims), value, dtype=TORCH_DTYPES[dtype], device=self.device)

    def ones(self, columns: int, dtype: DType) -> fx.Node:
        """A row of ones, the same one wherever a module needs it: nothing may write over it."""
        if (columns, dtype) not in self._ones:
            row = self.call(aten.full.default, [1, columns], 1.0, dtype=TORCH_DTYPES[dtype], device=self.device)
            self._ones[columns, dtype] = row
        return self._ones[columns, dtype]

    def cast(self, value: fx.Node, dtype: torch.dtype) -> fx.Node:
        """The value in another type; itself where it has that type."""
        return value if meta(value).dtype == dtype else self.call(aten._to_copy.default, value, dtype=dtype)

    # ---- layout

    def view(self, op: Any, value: fx.Node, numbers: Sequence[int]) -> fx.Node:
        """A view of a tensor, the shortest way there is to it. Where autograd follows, it matters who is seen."""
        if self.functional or any(isinstance(n, AtMost) for n in numbers):
            return self.call(op, value, list(numbers))
        way = self._views.way(op, value, list(numbers))
        return way if isinstance(way, fx.Node) else self.call(*way)

    def permute(self, value: fx.Node, dims: Dims, order: Dims) -> fx.Node:
        """A view with the axes in another order."""
        assert set(dims) == set(order) and len(dims) == len(order), f"{dims} are not {order}"
        if dims == order:
            return value
        return self.view(aten.permute.default, value, [dims.index(dim) for dim in order])

    def reshape(self, value: fx.Node, sizes: Sequence[int]) -> fx.Node:
        """A view of other sizes; a copy only where no view exists (the op's name tells which: view or reshape)."""
        if list(meta(value).shape) == list(sizes):
            return value
        if has_view(meta(value), sizes):
            return self.view(aten.view.default, value, sizes)
        return self.call(aten.reshape.default, value, list(sizes))

    def expand(self, value: fx.Node, sizes: Sequence[int]) -> fx.Node:
        """The value seen at every place along axes of size one or in front."""
        if list(meta(value).shape) == list(sizes):
            return value
        return self.view(aten.expand.default, value, sizes)

    def flatten(self, value: fx.Node, dims: Dims, groups: Sequence[Dims]) -> fx.Node:
        """One axis a group: a view where the layout allows."""
        order = tuple(dim for group in groups for dim in group)
        return self.reshape(self.permute(value, dims, order), [count(group) for group in groups])

    def viewable(self, value: fx.Node, dims: Dims, groups: Sequence[Dims]) -> bool:
        """Whether `flatten` needs no copy."""
        order = [dims.index(dim) for group in groups for dim in group]
        return has_view(meta(value).permute(order), [count(group) for group in groups])

    def align(self, value: Value, dims: Dims, target: Dims) -> Value:
        """A view that broadcasts against a tensor of `target` dims (a superset of `dims`)."""
        return self.spread(value, dims, target) if isinstance(value, fx.Node) else value

    def spread(self, value: fx.Node, dims: Dims, target: Dims) -> fx.Node:
        """`align` of what is known to be a tensor."""
        assert set(dims) <= set(target), f"{dims} are not within {target}"
        value = self.permute(value, dims, tuple(d for d in target if d in dims))
        lead = next((i for i, d in enumerate(target) if d in dims), len(target))
        return self.reshape(value, [size(d) if d in dims else 1 for d in target[lead:]])

    def contiguous(self, value: fx.Node) -> fx.Node:
        """The value in row-major order."""
        if meta(value).is_contiguous():
            return value
        return self.call(aten.clone.default, value, memory_format=torch.contiguous_format)


def aligned(e: Emitter, uses: Sequence[Use], values: Sequence[Value], target: Dims) -> list[Value]:
    """Operands of an elementwise operator as views that broadcast to `target`."""
    return [e.align(value, use.dims, target) for use, value in zip(uses, values, strict=True)]


_SHAPED = frozenset({aten.view.default, aten.reshape.default, aten.expand.default})


def _left_open(op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as they are written: of a view's sizes, the one that the data says is left to torch."""
    numbers = [n for arg in args for n in (arg if isinstance(arg, list | tuple) else (arg,))]
    if not any(isinstance(n, AtMost) for n in numbers):
        return args
    assert op in _SHAPED, f"{op} takes a size that only the data says"
    value, sizes = args
    loose = [isinstance(n, AtMost) for n in sizes]
    if math.prod(sizes) == 0:
        return value, [int(n) for n in sizes]
    assert sum(loose) == 1, f"{op}: one size can be left to torch, not {sum(loose)}"
    lead = len(sizes) - meta(value).dim()
    kept = op is not aten.expand.default or meta(value).shape[loose.index(True) - lead] == sizes[loose.index(True)]
    assert kept, "nothing is repeated as often as the data says"
    return value, [-1 if open_ else n for n, open_ in zip(sizes, loose, strict=True)]


def _on_meta(arg: Any) -> Any:
    """An argument as the meta device takes it."""
    if isinstance(arg, fx.Node):
        return arg.meta["val"]
    return [_on_meta(a) for a in arg] if isinstance(arg, (list, tuple)) else arg


# They write into their operands and give nothing back; the meta device has nothing to learn from them.
NO_RESULT = frozenset({aten._fused_adamw_.tensor_lr, aten._foreach_mul_.Tensor, aten._foreach_mul_.Scalar})
