"""Repetitions in names: which chains a graph has, and a name as it is in the first layer of each.

Tables and pictures show a chain's layers once; this is how `blocks.7.attn.q` and `blocks.0.attn.q` become one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..compiler.ir.graph import Graph


def chains_of(graph: Graph) -> dict[str, int]:
    """Each repetition's path and how many layers it has."""
    found: dict[str, set[int]] = {}
    for node in graph:
        if node.layer is not None:
            found.setdefault(node.layer.chain, set()).add(node.layer.index)
    return {chain: len(layers) for chain, layers in found.items()}


def first_layer(name: str, chains: Mapping[str, int]) -> str:
    """The name as it is in the first layer of every chain: `grad/blocks.7.h` is `grad/blocks.0.h`."""
    for chain in chains:
        name = re.sub(rf"(?<![\w.]){re.escape(chain)}\.\d+(?=\.|$)", f"{chain}.0", name)
    return name


def layers_at(path: str, chains: Mapping[str, int]) -> int:
    """How many layers an instance's first-layer path stands for."""
    count = 1
    for chain, layers in chains.items():
        if path == f"{chain}.0" or path.startswith(f"{chain}.0."):
            count *= layers
    return count
