"""A model's figures, whole and by block: parameters, FLOPs a token, memory.

In: a forward graph and a training step's graph, all sizes bound. Out: `Figures`, the same whether printed or given as
JSON. Nothing is computed with tensors, so a model of any size takes milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..compiler.cost.flops import Work, by_path, parameter_count, tokens, work_of, works
from ..compiler.cost.memory import Memory, Owner, kept_for_backward, step_memory
from ..compiler.ir.graph import Graph
from ..compiler.ir.types import Phase, dims_in
from ..compiler.ops.registry import REGISTRY
from ..compiler.ops.shapes import elements
from ..compiler.passes.inline import Inline
from ..compiler.passes.route import Route
from .layers import chains_of, first_layer, layers_at

TRAINING = (Phase.FORWARD, Phase.BACKWARD)


@dataclass(frozen=True, slots=True)
class BlockFigures:
    """One instance with all that is inside it; for a chain's layer, all layers together. Path `` is the whole model."""

    path: str
    layers: int
    parameters: int
    flops_per_token: float
    flops_per_token_step: float
    parameter_bytes: int
    kept_activation_bytes: int


@dataclass(frozen=True, slots=True)
class ContractionFigures:
    """A contraction of the forward, kernels taken apart; for one in a chain's layer, all layers together."""

    node: str
    over: tuple[str, ...]
    layers: int
    flops_per_token: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The model's; FLOPs are those of contractions, a multiply-add two (what MFU counts). Memory is of one device."""

    name: str
    parameters: int
    trained_parameters: int
    tokens: int
    flops_per_token: float
    flops_per_token_step: float
    memory_bytes: int
    memory: Mapping[str, int]
    peak_at: str
    dims: Mapping[str, int]
    assumed: tuple[str, ...]
    blocks: tuple[BlockFigures, ...]
    contractions: tuple[ContractionFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; counts are exact integers."""
        return asdict(self)


def figures(model: Graph, step: Graph, assumed: tuple[str, ...] = ()) -> Figures:
    """Everything that `partita show` tells."""
    count = tokens(step)
    memory = step_memory(step)
    parts = by_path(step)
    blocks = _blocks(model, step, count, parts)
    whole = Counter[Phase]()
    for (_, phase), work in parts.items():
        whole[phase] += work.model_flops
    return Figures(
        name=model.name,
        parameters=parameter_count(model),
        trained_parameters=parameter_count(model, trained_only=True),
        tokens=count,
        flops_per_token=_share(whole[Phase.FORWARD], count),
        flops_per_token_step=_share(sum(whole[phase] for phase in TRAINING), count),
        memory_bytes=memory.peak_bytes,
        memory=_by_owner(memory),
        peak_at=memory.at,
        dims={name: dim.size for name, dim in model.dims().items() if dim.size is not None},
        assumed=assumed,
        blocks=blocks,
        contractions=_contractions(Route()(model)),
    )


def _share(total: int, count: int) -> float:
    """Per token; an integer where it comes out even, as it does in models of text."""
    return total // count if total % count == 0 else total / count


def _by_owner(memory: Memory) -> dict[str, int]:
    return {owner.value.replace(" ", "_"): memory.of(owner) for owner in Owner}


def _blocks(model: Graph, step: Graph, count: int, parts: Mapping[tuple[str, Phase], Work]) -> tuple[BlockFigures, ...]:
    """A row for the model and for each instance, a chain's layers once, in the order in which they appear."""
    chains = chains_of(model)
    owners = _Owners(chains)
    parameters, parameter_bytes, forward, training, kept = (Counter[str]() for _ in range(5))
    paths = dict.fromkeys(owner for node in model for owner in owners.of(node.path))
    for node in model.nodes("parameter"):
        kind = node.outs[0]
        owners.add(parameters, node.path, elements(kind.dims))
        owners.add(parameter_bytes, node.path, elements(kind.dims) * kind.dtype.itemsize_bytes)
    for (path, phase), work in parts.items():
        owners.add(forward, path, work.model_flops if phase is Phase.FORWARD else 0)
        owners.add(training, path, work.model_flops if phase in TRAINING else 0)
    for path, size in kept_for_backward(step).items():
        owners.add(kept, path, size)
    return tuple(
        BlockFigures(
            path=path,
            layers=layers_at(path, chains),
            parameters=parameters[path],
            flops_per_token=_share(forward[path], count),
            flops_per_token_step=_share(training[path], count),
            parameter_bytes=parameter_bytes[path],
            kept_activation_bytes=kept[path],
        )
        for path in paths
    )


def _contractions(model: Graph) -> tuple[ContractionFigures, ...]:
    """A row for each contraction of a routed model, named as in the first layer: attention is two of them."""
    chains, count = chains_of(model), tokens(model)
    kernels = {node.op for node in model if REGISTRY[node.op].kernel is not None and work_of(node).model_flops}
    flops, layers, over = Counter[str](), Counter[str](), dict[str, tuple[str, ...]]()
    for node, work in works(Inline(all=True, only=tuple(kernels))(model)) if kernels else works(model):
        if work.model_flops:
            name = first_layer(node.id, chains)
            flops[name] += work.model_flops
            layers[name] += 1
            over[name] = tuple(dim.name for dim in dims_in(node.attrs.get("over")))
    return tuple(ContractionFigures(name, over[name], layers[name], _share(flops[name], count)) for name in flops)


@dataclass(frozen=True)
class _Owners:
    """The instances that a path lies in, the model first, named as in the first layer."""

    chains: Mapping[str, int]
    known: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def of(self, path: str) -> tuple[str, ...]:
        if path not in self.known:
            parts = first_layer(path, self.chains).split(".") if path else []
            inside = (".".join(parts[:depth]) for depth in range(len(parts) + 1))
            self.known[path] = tuple(owner for owner in inside if owner not in self.chains)  # `blocks` is its layers
        return self.known[path]

    def add(self, sums: Counter[str], path: str, amount: int) -> None:
        for owner in self.of(path):
            sums[owner] += amount
