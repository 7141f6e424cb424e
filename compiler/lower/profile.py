"""What a call of a module allocates, frees and needs meanwhile, in the order of its body.

In: a module's fx graph, whose every node was run on the meta device, so that storages, aliases and last readers are
facts. Out: its `Profile`, a moment for each node, with memories numbered within the module: one profile serves all the
calls that `footprint.py` meets in a program.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx

from .emit import storage
from .workspace import workspace_bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """One call of a module's body: what it makes, what it needs meanwhile, and what nobody names behind it.

    Memories are numbered within the module: inputs by position (aliases by their first), then fresh ones.
    """

    place: str
    born: tuple[tuple[int, int], ...]  # memory, bytes
    workspace: int
    died: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A module's allocations in order, the memories of its inputs and outputs, and the inputs that it drops at once."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    unused: tuple[int, ...]
    moments: tuple[Moment, ...]


def profile(graph: fx.Graph, threads: int) -> Profile:
    """The allocations of a module's body."""
    numbers: dict[int, int] = {}
    inputs: list[int] = []
    for node in graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta["val"], torch.Tensor):
            inputs.append(numbers.setdefault(storage(node.meta["val"]), len(inputs)))
    (outputs,) = next(n for n in reversed(graph.nodes) if n.op == "output").args
    calls = [n for n in graph.nodes if n.op == "call_function" and n.target is not operator.getitem]
    born: list[tuple[tuple[int, int], ...]] = []
    last: dict[int, int] = dict.fromkeys(inputs, -1)
    for position, node in enumerate(calls):
        made: list[tuple[int, int]] = []
        for tensor in _tensors(node.meta["val"]):
            memory = storage(tensor)
            if memory not in numbers:
                numbers[memory] = len(inputs) + len(numbers)
                made.append((numbers[memory], tensor.untyped_storage().nbytes()))
        named = [*_tensors(node.meta["val"]), *(t for used in node.all_input_nodes for t in _tensors(used.meta["val"]))]
        last.update((numbers[storage(tensor)], position) for tensor in named)
        born.append(tuple(made))
    kept = {numbers[storage(node.meta["val"])] for node in outputs}
    died: dict[int, list[int]] = {}
    for memory, position in last.items():
        if memory not in kept:
            died.setdefault(position, []).append(memory)
    moments = [
        Moment(node.meta["origin"], born[i], workspace_bytes(node, threads), tuple(died.get(i, ())))
        for i, node in enumerate(calls)
    ]
    where = tuple(numbers[storage(node.meta["val"])] for node in outputs)
    return Profile(tuple(inputs), where, tuple(died.get(-1, ())), tuple(moments))


def _tensors(value: object) -> list[torch.Tensor]:
    """The tensors that a call gives. Its names are dropped together: a getitem is part of its call."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in _tensors(item)] if isinstance(value, (list, tuple)) else []


def placed(place: str, layer: str) -> str:
    """`gpt2.partita:12 blocks.*.h` in the layer `blocks.3`."""
    chain, _, index = layer.rpartition(".")
    return place.replace(f"{chain}.*", f"{chain}.{index}") if layer else place
