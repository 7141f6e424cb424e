"""A model as an ordinary `torch.fx.GraphModule`, for people who have their own training loop.

In: a forward graph whose dims are all bound. Out: an `nn.Module` with the spec's parameters under their paths
(`blocks.0.attn.q.w`), initialised as the runtime would, and a `forward` that takes the ports by name. Only functional
kernels are emitted, so autograd differentiates it. Randomness reads the buffers `seed` and `step`: raise `step` by one
every step for new masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from ...runtime.random import initial_values
from ..ir.graph import Graph
from ..ir.types import Node
from .emit import TORCH_DTYPES, Emitter, Lifetimes, shape
from .fuse import listing
from .kernels import ARGUMENTS
from .modules import emit_nodes, identifier
from .outside import argument_name, initializer
from .segment import LITERALS, key_words

aten = torch.ops.aten


def module(graph: Graph, device: str = "cpu", seed: int = 0) -> fx.GraphModule:
    """The graph as a module. One output is returned as it is, several as a dict by name."""
    found = listing(graph)
    kept = found.asked()
    emitter = Emitter(device, functional=True, lifetimes=Lifetimes.of(found.nodes, kept))
    root = nn.Module()
    for node in sorted((n for n in found.nodes if n.op in ARGUMENTS), key=lambda n: n.op != "input"):
        _argument(emitter, root, node, device, seed)
    nodes = _reading_old(emitter, found.nodes)
    for node in found.nodes:
        if node.op in LITERALS:
            emitter.literals[node.id] = key_words(str(node.attrs[LITERALS[node.op]]))
    emit_nodes(emitter, [n for n in nodes if n.op not in ARGUMENTS], None)
    results = {name: emitter.tensor(emitter.values[use.value], use.dtype) for name, use in graph.outputs.items()}
    emitter.graph.output(next(iter(results.values())) if len(results) == 1 else results)
    return fx.GraphModule(root, emitter.graph, class_name=identifier(graph.name))


def _reading_old(emitter: Emitter, nodes: Sequence[Node]) -> list[Node]:
    """States that are written are read as copies: autograd reads them after the write."""
    found: list[Node] = []
    for node in nodes:
        if node.op == "lower.assign":
            target = node.uses[0]
            buffer = emitter.values[target.value]
            assert isinstance(buffer, fx.Node), "a state is a tensor"
            written = f"{target.node} written"
            emitter.bind((written, 0), buffer)
            emitter.bind(target.value, emitter.call(aten.clone.default, buffer))
            found.append(replace(node, uses=(replace(target, node=written), node.uses[1])))
        else:
            found.append(node)
    return found


def _argument(emitter: Emitter, root: nn.Module, node: Node, device: str, seed: int) -> None:
    out = node.outs[0]
    kind = TORCH_DTYPES[out.dtype]
    meta = torch.empty(shape(out.dims), dtype=kind, device="meta")
    if node.op == "input":
        emitter.argument(identifier(str(node.attrs["name"])), [(node.id, 0)], meta, owned=False)
        return
    if node.op in ("parameter", "state"):
        path = node.id
        drawn = initial_values(initializer(node.attrs["init"]), shape(out.dims), seed, node.id)
        value = drawn.to(device, kind)
    else:
        path = identifier(argument_name(node))
        value = torch.tensor(seed if node.op == "seed" else 0, dtype=kind, device=device)
    _place(root, path, value, node)
    emitter.attribute(path, (node.id, 0), meta)


def _place(root: nn.Module, path: str, value: torch.Tensor, node: Node) -> None:
    """Put a tensor where its path says, making the modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        children = dict(root.named_children())
        if parent not in children:
            children[parent] = nn.Module()
            root.add_module(parent, children[parent])
        root = children[parent]
    if node.op == "parameter":
        root.register_parameter(name, nn.Parameter(value, requires_grad=bool(node.attrs["trained"])))
    else:
        root.register_buffer(name, value, persistent=node.op == "state")
