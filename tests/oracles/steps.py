"""Training steps of a recipe, one after another: lowered and run, or by the reference interpreter.

In: a step's graph, weights, whole batches. Out: what each step gives (`loss`, `lr`, `grad_norm`, dumped values) and the
parameters and states that it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from partita.compiler.interpret import initial_value, interpret
from partita.compiler.ir.graph import Graph
from partita.compiler.lower.build import compile_graphs
from partita.runtime.folder import executable

from .values import Array

Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Done:
    """A step that was run."""

    outputs: Mapping[str, Array]
    store: Mapping[str, Array]


def starting(graph: Graph, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights, and the states as they are declared."""
    return {**weights, **{node.id: initial_value(node, 0) for node in graph.nodes("state")}}


def lowered_steps(
    graph: Graph, weights: Mapping[str, Array], batches: Sequence[Batch], seed: int = 0, dump: Sequence[str] = ()
) -> list[Done]:
    """By the lowered program, compiled once. `dump` are values that are kept, under `dump/<id>`."""
    build, sources = compile_graphs({"step": graph}, {}, {}, dump=dump)
    runnable = executable(build, sources)
    store = {name: torch.tensor(array) for name, array in starting(graph, weights).items()}
    done: list[Done] = []
    for step, batch in enumerate(batches):
        parts = [{k: torch.from_numpy(v) for k, v in part.items()} for part in parted(batch, graph.microbatches)]
        outputs = runnable.run("step", store, parts, step=step, seed=seed)
        left = {name: tensor.numpy().copy() for name, tensor in store.items()}
        done.append(Done({name: tensor.numpy().copy() for name, tensor in outputs.items()}, left))
    return done


def interpreted_steps(
    graph: Graph, weights: Mapping[str, Array], batches: Sequence[Batch], seed: int = 0
) -> list[Done]:
    """By the reference."""
    store = starting(graph, weights)
    done: list[Done] = []
    for step, batch in enumerate(batches):
        given = {**store, "step": step, "seed": seed}
        found = interpret(graph, given, microbatches=parted(batch, graph.microbatches))
        store = {name: found.get(name, array) for name, array in store.items()}
        done.append(Done({name: array for name, array in found.items() if name not in store}, store))
    return done


def parted(batch: Batch, count: int) -> list[dict[str, Array]]:
    """The rows of each microbatch."""
    return [
        {name: np.ascontiguousarray(part) for name, part in zip(batch, parts, strict=True)}
        for parts in zip(*(np.split(rows, count) for rows in batch.values()), strict=True)
    ]
