"""`partita bench memory`: our step within a budget against PyTorch's ways to keep less, at the peak that each reaches.

full        `torch.utils.checkpoint` around each block
selective   the same, which keeps products and attention and makes the rest again, as torchtitan's per-operator choice
budget      `torch.compile` with `torch._functorch.config.activation_memory_budget` of a half

Each peer's peak is measured, ours is compiled to `recompute = budget(that peak)`, and the steps then alternate in one
process: the ratio of times is at equal memory. Where we cannot do with so little, every layer is made again, and the
line says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as ways

from ...compiler.base.diagnostic import SpecError
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipe import Plan, Recipe, Recompute
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.pipeline import compile_recipe, open_spec
from ...runtime.folder import load
from ...runtime.state import initial_store
from .measure import Case, alternate, peak_bytes
from .peers import Run, Shape, has_chunked_loss, peer_step
from .step import SEED, TOLERANCE, batch_of, ours_of, shape_of

aten = torch.ops.aten
KEPT = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
RECIPE = "wide"
SHARE = 0.5  # of the memory between what the partitioner needs at the least and what it would keep


@dataclass(frozen=True)
class Peer:
    """One of PyTorch's ways. run: how each block runs. compiled: through torch.compile, with a budget."""

    name: str
    run: Run | None
    compiled: bool = False


def bench_memory(rounds: int, device: torch.device, compiled: bool) -> list[Case]:
    """Ours within each peer's peak against that peer. `compiled` adds those that want a C++ compiler on a CPU."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    peers = [Peer("checkpoint, full", _full), Peer("checkpoint, selective", _selective)]
    if compiled:
        peers.append(Peer("compiled, memory budget", None, True))
    return [_case(spec, peer, rounds, device) for peer in peers]


def _case(spec: Spec, peer: Peer, rounds: int, device: torch.device) -> Case:
    shape = shape_of(spec, RECIPE)
    batch = batch_of(shape, device)
    recipe = load_recipe(spec, RECIPE)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        compile_recipe(spec, recipe, whole, device=device.type)
        theirs = _peer(peer, whole, shape, batch, device)
        limit = peak_bytes(theirs, device)
        within = Path(scratch) / "within"
        said = _compiled(spec, recipe, limit, within, device)
        ours = ours_of(within, batch, device, False)
        first, second = float(ours()()), float(theirs()())
        assert abs(first - second) <= TOLERANCE * abs(second), f"losses differ: {first} and {second}"
        mine, their = alternate([ours(), theirs()], rounds, device)
        peak = peak_bytes(ours, device)
    return Case(RECIPE, f"PyTorch {peer.name}", said, True, mine / their, peak / limit, mine, their, peak, limit)


def _compiled(spec: Spec, recipe: Recipe, limit: int, folder: Path, device: torch.device) -> str:
    """Compiles ours within a limit, or with every layer made again where nothing fits; says which."""
    plan = recipe.plan or Plan()
    within = replace(recipe, plan=replace(plan, recompute=Recompute("budget", (), limit)))
    try:
        compile_recipe(spec, within, folder, device=device.type)
        return "Partita within it"
    except SpecError:
        full = replace(recipe, plan=replace(plan, recompute=Recompute("full")))
        compile_recipe(spec, full, folder, device=device.type)
        return "Partita, which needs more,"


def _peer(
    peer: Peer, folder: Path, shape: Shape, batch: dict[str, Tensor], device: torch.device
) -> Callable[[], Callable[[], Tensor]]:
    executable = load(folder, device)
    share = SHARE if peer.compiled else 1.0

    def make() -> Callable[[], Tensor]:
        weights = initial_store(executable.build, SEED, device)
        chunked = has_chunked_loss()
        step = peer_step(shape, weights, 1e-4, chunked=chunked, compiled=peer.compiled, device=device, run=peer.run)

        def within() -> Tensor:
            with _budget(share):  # is read when the first call compiles
                return step(batch["tokens"], batch["target"])

        return within

    return make


def _budget(share: float) -> AbstractContextManager[None]:
    from torch._functorch import config  # late: loads the compiler

    settings: Any = config
    return settings.patch(activation_memory_budget=share)


def _full(block: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, ways.checkpoint(block, x, use_reentrant=False))


def _selective(block: nn.Module, x: Tensor) -> Tensor:
    tools: Any = ways
    kept = partial(tools.create_selective_checkpoint_contexts, _policy)
    return cast(Tensor, ways.checkpoint(block, x, use_reentrant=False, context_fn=kept))


def _policy(context: object, op: object, *args: object, **named: object) -> ways.CheckpointPolicy:
    """Products and attention are kept."""
    policy = ways.CheckpointPolicy
    return policy.MUST_SAVE if op in KEPT else policy.PREFER_RECOMPUTE
