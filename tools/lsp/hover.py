"""What stands at a place: an expression's dims, sizes and cost, an instance's parameters, a declaration's text.

In: an analysis and an offset. Out: markdown and the span that it is about. Axes that a block only carries through
cannot be seen in its text; here they are named, apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...compiler.base.span import Span
from ...compiler.cost.flops import work_of
from ...compiler.elaborate.chain import count_parameters
from ...compiler.elaborate.frame import Frame
from ...compiler.elaborate.sizes import BATCH
from ...compiler.elaborate.trace import Seen
from ...compiler.elaborate.values import Chain, Function, Instance, Primitive, Value, describe, is_number
from ...compiler.ir.types import Dim, DType, Node, Use
from ...compiler.language import syntax as s
from ..numbers import flops_text
from ..signatures import comment, head
from .analysis import Analysis, Body
from .records import key_at

Answer = tuple[str, Span]


def hover(analysis: Analysis, offset: int) -> Answer | None:
    """What is to be said of a place, if anything."""
    path = analysis.path(offset)
    for node in reversed(path):
        found = _of_node(analysis, path, node, offset)
        if found is not None:
            return found
    return None


def _of_node(analysis: Analysis, path: tuple[s.Node, ...], node: s.Node, offset: int) -> Answer | None:
    if isinstance(node, s.RecordSet | s.RecordSub):
        return key_at(path, node, offset)
    if isinstance(node, s.DimRef):
        return _dim(analysis, path, node.name, node.span)
    if isinstance(node, s.Name | s.QName):
        return _name(analysis, path, node)
    seen = analysis.trace.at(node.span)
    if seen is None and isinstance(node, s.Ref):
        decl = analysis.find(node.name)
        return None if decl is None else (_declaration(decl), node.span)
    if seen is None or isinstance(node, s.Number | s.String | s.Bool | s.NoneLit):
        return None
    return _value(analysis, node.span.text, seen), node.span


def _name(analysis: Analysis, path: tuple[s.Node, ...], node: s.Name | s.QName) -> Answer | None:
    """A name where it is made, or the block in a constructor."""
    owner = path[path.index(node) - 1]
    if isinstance(owner, s.QName):
        return None  # its whole is asked next
    if isinstance(owner, s.Assign) and isinstance(node, s.Name):
        seen = analysis.trace.at(owner.value.span)
        alone = seen is not None and len(owner.targets) == 1
        return (_value(analysis, node.text, seen), node.span) if seen is not None and alone else None
    if isinstance(owner, s.Instance | s.Param | s.State | s.Port | s.Option) and isinstance(node, s.Name):
        seen = analysis.trace.at(owner.span)
        return (_value(analysis, node.text, seen), node.span) if seen is not None else None
    if isinstance(owner, s.Formal | s.DimBind | s.Sizes) and isinstance(node, s.Name):
        return _dim(analysis, path, node.text, node.span)
    if isinstance(owner, Body) and isinstance(node, s.Name):
        return _declaration(owner), node.span
    decl = analysis.find(node.text) if isinstance(owner, s.Constructor | s.Derived) else None
    return None if decl is None else (_declaration(decl), node.span)


# ---- values


def _value(analysis: Analysis, text: str, seen: Seen) -> str:
    """A value's type, then what it holds and takes."""
    label = text if len(text) <= 40 and "\n" not in text else "…"
    value, lines = seen.value, list[str]()
    if isinstance(value, Use):
        lines = [_code(f"{label} : {_tensor(analysis, value)}"), *_carried(seen.frame, value)]
    elif isinstance(value, Instance | Chain):
        lines = _instance(label, value)
    elif isinstance(value, Function):
        lines = [_declaration(value.decl)]
    elif isinstance(value, Primitive):
        lines = [_code(label), "a primitive of the language"]
    elif isinstance(value, tuple):
        lines = [_code(f"{label} : " + ", ".join(_one(analysis, part) for part in value))]
    else:
        lines = [_code(f"{label} = {value:,}" if is_number(value) else f"{label} : {describe(value)}")]
    return "\n\n".join([*lines, *_cost(analysis, seen.nodes)])


def _one(analysis: Analysis, value: Value) -> str:
    return _tensor(analysis, value) if isinstance(value, Use) else describe(value)


def _tensor(analysis: Analysis, use: Use) -> str:
    """`[T, D = 768]`; a size that nobody said is not shown, nor the type of a plain number."""
    kind = "" if use.dtype is DType.F32 else f"{use.dtype.value} "
    return kind + "[" + ", ".join(_sized(analysis, dim) for dim in use.dims) + "]"


def _sized(analysis: Analysis, dim: Dim) -> str:
    free = dim.size is None or analysis.traced[1].get(dim.name) == dim.size
    return dim.name if free else f"{dim.name} = {dim.size:,}"


def _carried(frame: Frame, use: Use) -> Iterator[str]:
    named = {dim for name, dims in frame.dims.items() if name != BATCH for dim in dims}
    through = [dim.name for dim in use.dims if dim not in named and (dim in frame.carried or dim.name == BATCH)]
    if through:
        yield f"*carried through, cannot be named here:* {', '.join(through)}"


def _instance(label: str, value: Instance | Chain) -> list[str]:
    one = value.templates[0] if isinstance(value, Chain) else value
    dims = ", ".join(f"{name} = {_total(axes)}" for name, axes in one.dims.items() if axes and name != BATCH)
    kind = "bank" if isinstance(value, Chain) and value.is_bank else "chain"
    times = f"{kind} {value.dim} = {len(value.kinds):,} of " if isinstance(value, Chain) else ""
    count = count_parameters(value)
    lines = [_code(f"{label} : {times}{one.name}" + (f"[{dims}]" if dims else ""))]
    if isinstance(value, Chain) and len(value.kinds) > 1 and len(value.templates) == 1:
        lines.append(f"{count:,} parameters, {count // len(value.kinds):,} a layer")
    else:
        lines.append(f"{count:,} parameters" if count else "no parameters")
    return [*lines, *filter(None, [comment(one.decl)])]


def _total(axes: tuple[Dim, ...]) -> str:
    return " * ".join(dim.name if dim.size is None else f"{dim.size:,}" for dim in axes)


def _cost(analysis: Analysis, nodes: tuple[Node, ...]) -> Iterator[str]:
    """FLOPs of one pass forward, where every size is known; a contraction's multiply-add is two."""
    dims = {dim.name: dim.size for node in nodes for kind in (*node.outs, *node.uses) for dim in kind.dims}
    if None in dims.values():
        return
    works = [work_of(node) for node in nodes if node.op != "scan"]
    flops, model = sum(work.flops for work in works), sum(work.model_flops for work in works)
    if flops:
        assumed = [f"{n} = {size:,}" for n, size in analysis.traced[1].items() if dims.get(n) == size]
        given = f" at {', '.join(assumed)}" if assumed else ""
        part = f", {flops_text(model)} of it in contractions" if model else ""
        yield f"{flops_text(flops)} forward{given}{part}"


# ---- names of other kinds


def _dim(analysis: Analysis, path: tuple[s.Node, ...], name: str, span: Span) -> Answer | None:
    """A dim's size, in the first frame of the declaration in which it is named."""
    frame = _frame(analysis, path)
    axes = frame.dims.get(name) if frame is not None else None
    if axes is None:
        return None
    text = " * ".join(_sized(analysis, dim) for dim in axes) if axes else "1"
    known = text.removeprefix(f"{name} = ")
    return _code(f"dim {name}" + (f" = {known}" if known != name else "")), span


def _frame(analysis: Analysis, path: tuple[s.Node, ...]) -> Frame | None:
    for node in reversed(path):
        seen = analysis.trace.at(node.span)
        if seen is not None:
            return seen.frame
    decl = next((node for node in path if isinstance(node, Body)), None)
    words = {s.Fn: "fn", s.Block: "block", s.Model: "model", s.Derived: "model"}
    return None if decl is None else analysis.trace.frame_of(analysis.source, f"{words[type(decl)]} {decl.name}")


def _declaration(decl: Body) -> str:
    return "\n\n".join(filter(None, [_code(head(decl)), comment(decl)]))


def _code(text: str) -> str:
    return f"```partita\n{text}\n```"
