"""One segment as a module: emitted through torch.fx, printed as a straight line of readable Python.

In: a segment and the meta tensors that it reads. Out: a `Module`: its fx graph, its source, and of each result the
shape, strides and whose memory it lies in. The source frees every local after its last use, takes its arguments in a
boxed list that it empties, and ends each line with the spec line that it came from. fx's own dead-code elimination is
never run: it deletes calls that only write.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from ..ir.types import Node, Phase
from .emit import Emitter, Key, Lifetimes, Rule, meta, storage
from .kernels import FUSED, RULES
from .outcomes import Outcomes
from .segment import LITERALS, Segment


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a module: a view of `storage` (input number, or one past the inputs for each new memory)."""

    storage: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Module:
    """A module that calls may share."""

    name: str
    source: str
    graph: fx.Graph
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor that a segment reads, and whether its memory is the segment's to write over."""

    tensor: torch.Tensor
    owned: bool


# Columns of a generated statement, its comment apart.
LONG = 140
VIEWS: Mapping[Any, str] = MappingProxyType(
    {
        torch.ops.aten.view.default: "view",
        torch.ops.aten.permute.default: "permute",
        torch.ops.aten.expand.default: "expand",
    }
)
# Written as methods of their first operand: a call through `aten` takes twice the time to reach its kernel.
METHODS: Mapping[Any, str] = MappingProxyType(
    {
        **VIEWS,
        torch.ops.aten.mm.default: "mm",
        torch.ops.aten.bmm.default: "bmm",
        torch.ops.aten.addmm.default: "addmm",
        torch.ops.aten.addmm_.default: "addmm_",
        torch.ops.aten.add_.Tensor: "add_",
        torch.ops.aten.sub_.Tensor: "sub_",
        torch.ops.aten.mul_.Tensor: "mul_",
    }
)


def rule(op: str) -> Rule:
    """How an operator is emitted."""
    found = RULES.get(op) or FUSED.get(op)
    assert found is not None, f"no kernel for the operator {op}"
    return found


def emit(segment: Segment, arguments: Sequence[Argument], device: str, outcomes: Outcomes | None = None) -> Emitter:
    """The segment's fx graph, its output a tuple in the order of `segment.outputs`. outcomes: of kernels so far."""
    lifetimes = Lifetimes.of(segment.nodes, frozenset(segment.outputs))
    emitter = Emitter(device, functional=False, lifetimes=lifetimes, outcomes=outcomes)
    rewritten = _rewritten(segment)
    for key, argument in zip(segment.inputs, arguments, strict=True):
        owned = argument.owned or key in rewritten
        emitter.argument(identifier(_short(key[0], segment)), [key], argument.tensor, owned)
    for node in segment.nodes:
        if node.op in LITERALS:
            name = identifier(_short(node.id, segment))
            emitter.literal(node.id, [f"{name}_key_a", f"{name}_key_b"])
    emit_nodes(emitter, segment.nodes, segment)
    outputs: list[fx.Node] = []
    for key in segment.outputs:
        node = next(n for n in segment.nodes if n.id == key[0])
        outputs.append(emitter.tensor(emitter.values[key], node.outs[key[1]].dtype))
    emitter.graph.output(tuple(outputs))
    _drop_unread_views(emitter.graph)
    return emitter


def _drop_unread_views(graph: fx.Graph) -> None:
    """What was taken on the way to a view that is then taken from further back."""
    for node in reversed(graph.nodes):
        if node.target in VIEWS and not node.users:
            graph.erase_node(node)


def _rewritten(segment: Segment) -> frozenset[Key]:
    """What the update writes over as a whole: behind the last reader of the old value its memory is free until then."""
    if segment.phase is not Phase.UPDATE:
        return frozenset()
    return frozenset(node.uses[0].value for node in segment.nodes if node.op == "lower.assign")


def emit_nodes(emitter: Emitter, nodes: Sequence[Node], segment: Segment | None) -> None:
    """Emit nodes in order, naming results after the variables of the spec."""
    for position, node in enumerate(nodes):
        emitter.origin = origin(node)
        emitter.emit(rule(node.op), node, position)
        for index in range(len(node.outs)):
            value = emitter.values.get((node.id, index))
            if isinstance(value, fx.Node) and value.op == "call_function" and "named" not in value.meta:
                value.meta["named"] = True
                short = _short(node.id, segment) if segment else node.id
                name = identifier(short if index == 0 else f"{short}_{_role(node, index)}")
                value._rename(name)  # pyright: ignore[reportPrivateUsage]


def _role(node: Node, index: int) -> str:
    """What a second result is called."""
    names = {"layer_norm": ("y", "mean", "rstd"), "rms_norm": ("y", "rstd"), "attention": ("y", "lse")}
    return names.get(node.op, ())[index] if node.op in names else str(index)


def origin(node: Node) -> str:
    """`gpt2.partita:12 blocks.*.h`: where a line of a module was written."""
    name = node.id
    if node.layer is not None:
        name = re.sub(rf"\b{re.escape(node.layer.chain)}\.{node.layer.index}\b", f"{node.layer.chain}.*", name)
    if not node.origin:
        return name
    place = node.origin[0]
    return f"{place.file.rsplit('/', 1)[-1]}:{place.line} {name}"


def _short(name: str, segment: Segment) -> str:
    """A node's id without the path of its layer."""
    if segment.layer is None:
        return name
    return re.sub(rf"(^|/){re.escape(segment.layer.chain)}\.\d+\.", r"\1", name)


def identifier(text: str) -> str:
    """A Python name that reads like the text."""
    name = re.sub(r"\W+", "_", text).strip("_") or "value"
    taken = keyword.iskeyword(name) or name in ("aten", "args", "float", "kernels", "run", "torch")
    return f"{name}_" if taken else f"_{name}" if name[0].isdigit() else name


# ---- source


def finish(name: str, title: str, emitter: Emitter) -> Module:
    """The module of an emitted segment."""
    graph = emitter.graph
    inputs = [
        storage(meta(n)) for n in graph.nodes if n.op == "placeholder" and isinstance(n.meta["val"], torch.Tensor)
    ]
    (outputs,) = next(n for n in reversed(graph.nodes) if n.op == "output").args
    fresh: list[int] = []
    results: list[Result] = []
    for node in outputs:
        value = meta(node)
        memory = storage(value)
        if memory not in inputs and memory not in fresh:
            fresh.append(memory)
        at = inputs.index(memory) if memory in inputs else len(inputs) + fresh.index(memory)
        offset = int(value.storage_offset())
        results.append(Result(at, tuple(value.shape), tuple(value.stride()), offset, value.dtype))
    return Module(name, print_source(graph, title), graph, tuple(results))


def print_source(graph: fx.Graph, title: str) -> str:
    """The module's text."""
    lines = [f'"""{title}"""', "", "import torch", ""]
    body = _body(graph)
    if any("kernels." in line for line in body):
        lines += ["from partita.runtime import kernels", ""]
    lines += ["aten = torch.ops.aten", "", "", "def run(args):"]
    return "\n".join([*lines, *[f"    {line}" for line in body]]) + "\n"


def _body(graph: fx.Graph) -> list[str]:
    last = _last_uses(graph)
    names = [node.name for node in graph.nodes if node.op == "placeholder"]
    unused = [name for name in names if name not in {n for dead in last.values() for n in dead}]
    lines = ["(", *[f"    {row}," for row in _rows(names)], ") = args", "args.clear()"] if names else []
    outputs = next(n for n in reversed(graph.nodes) if n.op == "output").args[0]
    returned = {node.name for node in outputs}
    gone = [name for name in unused if name not in returned]
    if gone:
        lines.extend(f"del {row}" for row in _rows(gone))
    for node in graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            lines.extend(_statement(node, [n for n in last.get(node, []) if n not in returned]))
    results = [node.name for node in outputs]
    if sum(len(name) + 2 for name in results) <= LONG:
        return [*lines, f"return [{', '.join(results)}]"]
    return [*lines, "return [", *[f"    {row}," for row in _rows(results)], "]"]


def _last_uses(graph: fx.Graph) -> Mapping[fx.Node, list[str]]:
    """The names whose last reader each node is. A getitem is part of the call that it takes from."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            for used in node.all_input_nodes:
                last[used] = node
    found: dict[fx.Node, list[str]] = {}
    for used, node in last.items():
        found.setdefault(node, []).append(used.name)
    return found


def _statement(node: fx.Node, dead: Sequence[str]) -> list[str]:
    """`y = aten.add.Tensor(x, z); del x, z  # place`; what is too long for a line gets several."""
    left, unused = _left(node)
    method = node.target in METHODS
    called = f"{_text(node.args[0])}.{METHODS[node.target]}" if method else _target(node.target)
    head = f"{left} = {called}(" if left else f"{called}("
    given = _arguments(node)[method:]
    if node.target in VIEWS and (numbers := cast("list[int]", node.args[1])):
        given = [_text(number) for number in numbers]  # to read a list costs as much again as the view
    gone = [*dead, *unused]
    drop = f"del {', '.join(gone)}" if gone else ""
    place = f"  # {node.meta['origin']}"
    line = f"{head}{', '.join(given)})"
    if len(line) + len(drop) <= LONG:
        return [f"{line}; {drop}{place}" if drop else f"{line}{place}"]
    drops = [f"del {names}{place}" for names in _rows(gone)]
    if len(line) <= LONG or node.target in VIEWS:
        return [f"{line}{place}", *drops]
    lines = [f"{head}{place}"]
    for text, value in zip(given, [*node.args, *node.kwargs.values()][method:], strict=True):
        if isinstance(value, (list, tuple)) and len(text) > LONG:
            lines += ["    [", *[f"        {names}," for names in _rows([_text(v) for v in value])], "    ],"]
        else:
            lines.append(f"    {text},")
    return [*lines, ")", *drops]


def _rows(words: Sequence[str]) -> list[str]:
    """Words with commas between, in lines of a readable length."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and sum(len(w) + 2 for w in lines[-1]) + len(word) > LONG - 40:
            lines.append([])
        lines[-1].append(word)
    return [", ".join(line) for line in lines if line]


def _left(node: fx.Node) -> tuple[str, list[str]]:
    """The names that a call's results get, and those that nothing reads."""
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        items = {n.args[1]: n for n in node.users if n.target is operator.getitem}
        names = [items[i].name if i in items and items[i].users else "_" for i in range(len(value))]
        left = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
        return left, ["_"] if "_" in names else []
    return (node.name, []) if node.users else ("", [])


def _target(target: Any) -> str:
    if isinstance(target, OpOverload):
        return str(target)
    return f"kernels.{target.__name__}"


def _arguments(node: fx.Node) -> list[str]:
    schema = getattr(node.target, "_schema", None)
    given = [_text(arg) for arg in node.args]
    given += [f"{key}={_text(value)}" for key, value in node.kwargs.items()]
    assert schema is None or len(schema.arguments) >= len(node.args), f"{node.target} has too many arguments"
    return given


def _text(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(v) for v in value)}]"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)
