"""`partita bench memory`: our step within a budget against PyTorch's ways to keep less, at the peak that each reaches.

checkpoint-full       `torch.utils.checkpoint` around each block
checkpoint-selective  the same, which keeps products and attention and makes the rest again, as torchtitan's choice
budget                `torch._functorch.config.activation_memory_budget` of a half: AOTAutograd's partitioner, whose
                      graphs PyTorch's own kernels run
budget-compiled       the same graphs through inductor; on a CPU it wants a C++ compiler

Each peer's peak is measured. Ours is compiled to `recompute = budget(that peak)`, so that times are compared at equal
memory; and to the least that it can do with, and half-way to that, to see how much less will do in the same time. The
steps then alternate in one process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
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
from ...compiler.cost.table import Table
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipe import Plan, Recompute
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.pipeline import compile_recipe, open_spec
from ...compiler.recompute.fit import MIB
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
PARTITIONED, COMPILED = "aot_eager_decomp_partition", "inductor"


@dataclass(frozen=True)
class Peer:
    """One of PyTorch's ways. run: how each block runs. backend: of torch.compile, with a budget."""

    name: str
    run: Run | None = None
    backend: str | None = None


def peers() -> dict[str, Peer]:
    """All of them by name."""
    every = (
        Peer("checkpoint-full", _full),
        Peer("checkpoint-selective", _selective),
        Peer("budget", backend=PARTITIONED),
        Peer("budget-compiled", backend=COMPILED),
    )
    return {peer.name: peer for peer in every}


def bench_memory(names: Sequence[str], rounds: int, device: torch.device, table: Table | None) -> list[Case]:
    """Ours within each peer's peak, and with the least, against that peer. `table`: what kernels take here."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    known = peers()
    return [case for name in names for case in _cases(spec, known[name], rounds, device, table)]


def _cases(spec: Spec, peer: Peer, rounds: int, device: torch.device, table: Table | None) -> list[Case]:
    shape = shape_of(spec, RECIPE)
    batch = batch_of(shape, device)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        compile_recipe(spec, load_recipe(spec, RECIPE), whole, device=device.type)
        theirs = _peer(peer, whole, shape, batch, device)
        limit = peak_bytes(theirs, device)
        builds = _within(spec, limit, Path(scratch), device, table)
        ours = [ours_of(folder, batch, device, False) for folder in builds.values()]
        running = [theirs(), *(make() for make in ours)]
        first, *others = [float(step()) for step in running]
        assert all(abs(loss - first) <= TOLERANCE * abs(first) for loss in others), f"losses differ: {first}, {others}"
        their, *mine = alternate(running, rounds, device)
        del running
        peaks = [peak_bytes(make, device) for make in ours]
    return [
        Case(RECIPE, f"PyTorch {peer.name}", said, at == 0, seconds / their, peak / limit, seconds, their, peak, limit)
        for at, (said, seconds, peak) in enumerate(zip(builds, mine, peaks, strict=True))
    ]


def _within(spec: Spec, limit: int, folder: Path, device: torch.device, table: Table | None) -> dict[str, Path]:
    """Builds of ours by what they are: within a limit, where that can be, and with less."""
    found: dict[str, Path] = {}
    least = limit
    try:
        _compiled(spec, 1, folder / "none", device, table)
    except SpecError as refusal:
        (said,) = refusal.diagnostics
        least = int(float((said.hint or "").partition("budget(")[2].partition(" MiB")[0]) * MIB)
    budgets = {"within it": limit, "half-way to the least": (limit + least) // 2, "with the least": least}
    for at, (name, budget) in enumerate(budgets.items()):
        if budget >= least:
            found[f"Partita {name}"] = folder / str(at)
            _compiled(spec, budget, folder / str(at), device, table)
    return found


def _compiled(spec: Spec, budget: int, folder: Path, device: torch.device, table: Table | None) -> None:
    recipe = load_recipe(spec, RECIPE)
    plan = replace(recipe.plan or Plan(), recompute=Recompute("budget", (), budget))
    compile_recipe(spec, replace(recipe, plan=plan), folder, device=device.type, table=table)


def _peer(
    peer: Peer, folder: Path, shape: Shape, batch: dict[str, Tensor], device: torch.device
) -> Callable[[], Callable[[], Tensor]]:
    executable = load(folder, device)
    share = SHARE if peer.backend else 1.0

    def make() -> Callable[[], Tensor]:
        weights = initial_store(executable.build, SEED, device)
        chunked = has_chunked_loss()
        step = peer_step(shape, weights, 1e-4, chunked=chunked, compiled=peer.backend, device=device, run=peer.run)

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
