"""What a node computes and what it is called, in a few words for people.

In: a node of a graph. Out: `dot over D`, `softmax over S`, `x + f`, `parameter ~ normal(0.02)`; and the variable's name
as short as its surroundings allow. Operators that have no phrase of their own are described by their name and dims, so
a new operator needs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..compiler.ir.types import Attr, Dim, Dims, Node, Use

NAME_WIDTH = 14  # an operand's name that is longer is cut to its last part
INFIX: Mapping[str, str] = MappingProxyType(
    {
        "add": "+",
        "sub": "−",
        "mul": "×",
        "div": "÷",
        "rem": "mod",
        "pow": "^",
        "eq": "=",
        "ne": "≠",
        "lt": "<",
        "le": "≤",
    }
    | {"gt": ">", "ge": "≥", "logical_and": "and", "logical_or": "or"}
)
CALLS = frozenset({"exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "floor", "abs"})
PAIRS = frozenset({"maximum", "minimum"})


def short_name(node_id: str, path: str = "") -> str:
    """The name as read from inside instance `path`: `blocks.0.attn.q` is `q` inside `blocks.0.attn`."""
    if not path:
        return node_id
    kind, slash, name = node_id.rpartition("/")
    return f"{kind}{slash}{name.removeprefix(f'{path}.')}"


def dims_text(dims: Dims) -> str:
    """`[batch T D]`, or nothing for a scalar."""
    return f"[{' '.join(d.name for d in dims)}]" if dims else ""


def computes(node: Node) -> str:
    """The label inside a node's box."""
    phrase = PHRASES.get(node.op)
    if phrase is not None:
        return phrase(node)
    if node.op in INFIX:
        return f" {INFIX[node.op]} ".join(_operand(node, use) for use in node.uses)
    if node.op in CALLS or node.op in PAIRS:
        return f"{node.op}({', '.join(_operand(node, use) for use in node.uses)})"
    return _over(node.op.replace("_", " "), _first_dims(node.attrs))


def _operand(node: Node, use: Use) -> str:
    """An operand's name, short: what stands outside its own box, or the end of it."""
    kind, slash, name = short_name(use.node, node.path).rpartition("/")
    while "." in name and (len(name) > NAME_WIDTH or name[0].isdecimal()):
        name = name.partition(".")[2]
    return f"{kind}{slash}{name}"


def _first_dims(attrs: Mapping[str, Attr]) -> Dims:
    """The dims that an operator works over: its first attribute that holds any."""
    for value in attrs.values():
        found = _dims(value)
        if found:
            return found
    return ()


def _dims(value: Attr) -> Dims:
    if isinstance(value, Dim):
        return (value,)
    return tuple(d for d in value if isinstance(d, Dim)) if isinstance(value, tuple) else ()


def _over(what: str, dims: Dims) -> str:
    return f"{what} over {' '.join(d.name for d in dims)}" if dims else what


def _names(value: Attr) -> str:
    return " ".join(d.name for d in _dims(value))


def number_text(value: Attr) -> str:
    """A constant as people write it: 0.125, 1e-05, true."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _initial(node: Node) -> str:
    init = node.attrs.get("init")
    if not isinstance(init, tuple) or not init:
        return node.op
    arguments = ", ".join(number_text(a) for a in init[1:])
    return f"{node.op} ~ {init[0]}({arguments})" if arguments else f"{node.op} = {init[0]}"


def _input(node: Node) -> str:
    below = node.attrs.get("below")
    return f"input, ids in {below}" if isinstance(below, Dim) else "input"


def _dot(node: Node) -> str:
    return _over("dot", _dims(node.attrs.get("over"))) if _dims(node.attrs.get("over")) else "outer product"


def _attention(node: Node) -> str:
    mask = node.attrs.get("mask")
    what = node.op.replace("_", " ") + (f" ({mask})" if isinstance(mask, str) and mask != "full" else "")
    return _over(what, _dims(node.attrs.get("S")))


PHRASES: Mapping[str, Callable[[Node], str]] = MappingProxyType(
    {
        "parameter": _initial,
        "state": _initial,
        "input": _input,
        "constant": lambda n: number_text(n.attrs.get("value")),
        "start": lambda n: f"start of {_names(n.attrs.get('dim'))}",
        "extent": lambda n: f"size of {_names(n.attrs.get('over'))}",
        "index": lambda n: f"index of {_names(n.attrs.get('dim'))}",
        "random": lambda n: f"uniform random {dims_text(n.outs[0].dims)}",
        "gaussian": lambda n: f"normal random {dims_text(n.outs[0].dims)}",
        "neg": lambda n: f"−{_operand(n, n.uses[0])}",
        "logical_not": lambda n: f"not {_operand(n, n.uses[0])}",
        "where": lambda n: f"{_operand(n, n.uses[1])} where {_operand(n, n.uses[0])} else {_operand(n, n.uses[2])}",
        "cast": lambda n: f"cast to {n.outs[0].dtype.value}",
        "stop": lambda n: "stop gradient",
        "dot": _dot,
        "gather": lambda n: f"look up {_names(n.attrs.get('dim'))}",
        "scatter_add": lambda n: f"scatter-add over {_names(n.attrs.get('dim'))}",
        "split_dim": lambda n: f"split {_names(n.attrs.get('dim'))} into {_names(n.attrs.get('into'))}",
        "merge_dims": lambda n: f"merge {_names(n.attrs.get('dims'))} into {_names(n.attrs.get('into'))}",
        "expand": lambda n: f"expand to {dims_text(n.outs[0].dims)}",
        "transpose": lambda n: f"transpose to {dims_text(n.outs[0].dims)}",
        "concat": lambda n: f"concatenate {_names(n.attrs.get('parts'))} to {_names(n.attrs.get('dim'))}",
        "split": lambda n: f"split {_names(n.attrs.get('dim'))} into {_names(n.attrs.get('parts'))}",
        "attention": _attention,
        "attention_backward": _attention,
        "accumulate": lambda n: "sum over microbatches",
        "assign": lambda n: f"write to {n.attrs.get('target')}",
        "adamw": lambda n: "AdamW",
    }
)
