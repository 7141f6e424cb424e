"""The step of any model of the zoo under what keeps a device's memory small, as lowered.

In: a model in its tiny size, types, what is made again, what lies on the host. Out: what a step of two microbatches
gives and leaves. Its loss is all that the model gives, weighed by random numbers; what is dropped out is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.roofline import node_time
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT, LOSS
from partita.compiler.ir.types import DType, Node
from partita.compiler.lower.outside import ALONE
from partita.compiler.offloaded import offloaded
from partita.compiler.passes import Pass, run_passes
from partita.compiler.passes.rematerialize import Rematerialize
from partita.compiler.pipeline import step_passes
from partita.compiler.recompute.block import blocks_of
from partita.compiler.recompute.chain import chain_of
from samples.recipes import recipe_over
from samples.spec_texts import model_spec
from samples.zoo import DIMS

from .lowered import run_lowered
from .probes import probed
from .values import Array, leaf_values, microbatches_of

POINTS = {"least": 0.0, "middle": 0.5}  # of the chain of choices that a budget is looked for in
AGAIN = ("none", "selective", "full", *POINTS)
OFFLOADS = ((), ("optimizer",), ("activations",), ("optimizer", "activations"))


@dataclass(frozen=True)
class Trained:
    """A model and its types. drop: of its option of that name, where it has one."""

    file: str
    model: str
    types: str = "f64"
    drop: float | None = None
    microbatches: int = 2

    def __str__(self) -> str:
        return f"{self.model} {self.types}"

    @property
    def passes(self) -> list[Pass]:
        """What makes its loss a step, with clipping and AdamW."""
        precision = self.types if self.types == "f64" else f"mixed(compute = {self.types})"
        count = self.microbatches
        spec, recipe = recipe_over("gpt2", "GPT2", precision, clip=0.5, batch=count, microbatches=count)
        return step_passes(spec, recipe)

    def loss(self) -> Graph:
        """Over all that the model gives."""
        return _loss(self)

    def step(self, again: str = "none", offload: tuple[str, ...] = ()) -> Graph:
        """On one device."""
        passes, at, kept = self.passes, place_of(self.passes), _kept(self)
        policy = Rematerialize("none", again if again not in POINTS else "none")
        if again in POINTS:
            chain = chain_of(blocks_of(kept, _seconds))
            policy = Rematerialize("none", values=chain.values(int(POINTS[again] * len(chain))))
        step = run_passes(kept, [policy, *passes[at + 1 :]], GRADIENT)
        return offloaded({"step": step}, ALONE, offload)[0]["step"]

    def values(self) -> dict[str, Array]:
        """Of all leaves: the longer a sum, the smaller its terms; states as large as a variance."""
        loss, step = self.loss(), self.step()
        values = {**leaf_values(step, 5), **{n.id: leaf_values(loss, 7)[n.id] for n in loss.nodes("input")}}
        for node in step.nodes("parameter"):
            values[node.id] = values[node.id] / np.sqrt(max(1, np.prod(np.shape(values[node.id])[:-1])))
        return values | {node.id: np.abs(values[node.id]) for node in step.nodes("state")}


def place_of(passes: Sequence[Pass]) -> int:
    """Where it is said what is made again."""
    return next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))


@cache
def _loss(what: Trained) -> Graph:
    dims = dict(DIMS[what.file, what.model])
    dims |= {"batch": what.microbatches} if "batch" in dims else {}
    dtype = DType.F64 if what.types == "f64" else DType.F32
    options = {} if what.drop is None else {"drop": what.drop}
    spec = model_spec(what.file)
    return probed(elaborate_model(spec, what.model, dims=dims, options=options, training=True, dtype=dtype)[0])


@cache
def _kept(what: Trained) -> Graph:
    """The loss with its gradients, where all is kept."""
    return run_passes(what.loss(), what.passes[: place_of(what.passes)], LOSS)


def _seconds(node: Node) -> float:
    return node_time(node, H100_NODES.machine).seconds


def as_it_can_be_cut(what: Trained) -> Trained:
    """In one microbatch where rows are not apart (statistics of a batch)."""
    try:
        what.step()
    except SpecError:
        return replace(what, microbatches=1)
    return what


def ran(step: Graph, values: dict[str, Array]) -> dict[str, Array]:
    """Its outputs, and what is left in parameters and states."""
    outputs, store = run_lowered(step, values, microbatches_of(step, values))
    return outputs | store


def assert_same_with_less(what: Trained, again: str, offload: tuple[str, ...]) -> Graph:
    """As the same step that keeps everything on its device, within the order of sums; gives the step."""
    what = as_it_can_be_cut(what)
    values, step = what.values(), what.step(again, offload)
    wanted, found = ran(what.step(), values), ran(step, values)
    assert found.keys() == wanted.keys()
    near = 1e-10 if what.types == "f64" else 1e-5
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=near, atol=near, err_msg=name)
    return step
