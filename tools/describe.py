"""What a node computes and what it is called, in the words of the field.

In: a node of a graph. Out: `dot over D`, `softmax over S`, `+`, `x · σ(x)`, `parameter ~ normal(0.02)`; and the
variable's name as short as its surroundings allow. Of what it is computed, the arrows tell. Operators that have no
phrase of their own are described by their name and dims, so a new operator needs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..compiler.ir.types import Attr, Dim, Dims, Node

BACKWARD = "_backward"

# Operators whose words are the same wherever they stand.
WORDS: Mapping[str, str] = MappingProxyType(
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
        "gt": ">",
        "ge": "≥",
        "logical_and": "and",
        "logical_or": "or",
        "logical_not": "not",
        "neg": "−x",
        "abs": "|x|",
        "floor": "⌊x⌋",
        "exp": "exp x",
        "log": "log x",
        "sqrt": "√x",
        "rsqrt": "1 / √x",
        "tanh": "tanh x",
        "erf": "erf x",
        "sin": "sin x",
        "cos": "cos x",
        "sigmoid": "σ(x)",
        "silu": "x · σ(x)",
        "gelu": "gelu",
        "gelu_tanh": "gelu (tanh)",
        "where": "x if c, else y",
        "stop": "stop gradient",
        "accumulate": "sum over microbatches",
        "adamw": "AdamW",
        "seed": "the run's seed",
        "step": "the step's number",
    }
)


# What a summary calls operators that stand for themselves with a symbol or with the dims that they work over.
SUMMARY: Mapping[str, str] = MappingProxyType(
    {
        "add": "add",
        "sub": "subtract",
        "mul": "multiply",
        "div": "divide",
        "gather": "look-up",
        "scatter_add": "scatter-add",
        "cross_entropy": "cross-entropy",
        "rms_norm": "RMS norm",
        "split_dim": "split",
        "merge_dims": "merge",
        "where": "choose",
        "silu": "silu",
        "assign": "write",
    }
)


def short_name(node_id: str, path: str = "") -> str:
    """The name as read from inside instance `path`: `blocks.0.attn.q` is `q` inside `blocks.0.attn`."""
    if not path:
        return node_id
    kind, slash, name = node_id.rpartition("/")
    return f"{kind}{slash}{name.removeprefix(f'{path}.')}"


def dims_text(dims: Dims) -> str:
    """`[batch T D]`, or nothing for a scalar."""
    return f"[{' '.join(d.name for d in dims)}]" if dims else ""


def own_name(node: Node) -> str:
    """The name that the spec gave the variable; nothing where it gave none and the node is called as its operator."""
    name = short_name(node.id, node.path)
    last = re.sub(r"\.\d+$", "", name).rpartition("/")[2].rpartition(".")[2]
    return "" if last == node.op or (node.op, last) == ("constant", "const") else name


def computes(node: Node) -> str:
    """The label inside a node's box."""
    phrase = PHRASES.get(node.op)
    if phrase is not None:
        return phrase(node)
    words = operator_words(node.op)
    plain = node.op.removesuffix(BACKWARD)
    return words if plain in WORDS or plain.endswith("_norm") else _over(words, _first_dims(node.attrs))


def operator_words(op: str) -> str:
    """What an operator is called, whatever it works over."""
    if op.endswith(BACKWARD):
        return f"{operator_words(op.removesuffix(BACKWARD))}, backward"
    return WORDS.get(op) or SUMMARY.get(op) or op.replace("_", " ")


def summary_words(node: Node) -> str:
    """The node in a word or two, for a box that stands for many."""
    if node.op.startswith("attention"):
        return computes(node)
    return SUMMARY.get(node.op) or operator_words(node.op)


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
    back = ", backward" if node.op.endswith(BACKWARD) else ""
    return "attention" + (f", {mask}" if isinstance(mask, str) and mask != "full" else "") + back


PHRASES: Mapping[str, Callable[[Node], str]] = MappingProxyType(
    {
        "parameter": _initial,
        "state": _initial,
        "input": _input,
        "constant": lambda n: number_text(n.attrs.get("value")),
        "start": lambda n: f"start of {_names(n.attrs.get('dim'))}",
        "extent": lambda n: f"size of {_names(n.attrs.get('over'))}",
        "index": lambda n: f"index of {_names(n.attrs.get('dim'))}",
        "random": lambda n: "uniform random",
        "gaussian": lambda n: "normal random",
        "cast": lambda n: f"cast to {n.outs[0].dtype.value}",
        "dot": _dot,
        "gather": lambda n: f"look up in {_names(n.attrs.get('dim'))}",
        "scatter_add": lambda n: f"scatter-add over {_names(n.attrs.get('dim'))}",
        "split_dim": lambda n: f"split {_names(n.attrs.get('dim'))} into {_names(n.attrs.get('into'))}",
        "merge_dims": lambda n: f"merge {_names(n.attrs.get('dims'))} into {_names(n.attrs.get('into'))}",
        "expand": lambda n: f"expand to {dims_text(n.outs[0].dims)}",
        "transpose": lambda n: f"transpose to {dims_text(n.outs[0].dims)}",
        "concat": lambda n: f"concatenate {_names(n.attrs.get('parts'))} to {_names(n.attrs.get('dim'))}",
        "split": lambda n: f"split {_names(n.attrs.get('dim'))} into {_names(n.attrs.get('parts'))}",
        "attention": _attention,
        "attention_backward": _attention,
        **dict.fromkeys(
            ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "shard", "partial"),
            lambda n: f"{n.op.replace('_', '-')} over {n.attrs.get('axis')}",
        ),
        "assign": lambda n: f"write to {n.attrs.get('target')}",
    }
)
