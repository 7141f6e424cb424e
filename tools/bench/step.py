"""`partita bench step`: our training step against a plain PyTorch GPT-2, eager and compiled.

`partita bench precision` is the same with `mixed(compute = bf16)` against the peers under autocast.

The same weights and batch, alternating in one process, medians; the losses of both sides must agree before anything
is timed. Ours runs as it is written, and through `torch.compile` where the peer does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.models import elaborate_model
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.pipeline import compile_recipe, open_spec
from ...runtime.execute import Executable
from ...runtime.folder import load
from ...runtime.state import initial_store
from .measure import Case, Step, alternate, peak_bytes
from .peers import Shape, has_chunked_loss, peer_step

CASES = ("small", "medium")
TOLERANCE = 1e-4  # relative, between the losses of the first step in float32
LOW_TOLERANCE = 2.0**-8  # the same in bfloat16: its unit roundoff
SEED = 0


@dataclass(frozen=True)
class Contestant:
    """Somebody who makes a step from nothing; `make` is called again for each measurement."""

    name: str
    make: Callable[[], Callable[[], torch.Tensor]]


def bench_step(
    names: tuple[str, ...], rounds: int, device: torch.device, compiled: bool, low: bool = False
) -> list[Case]:
    """Every case against every peer. `compiled` adds torch.compile on both sides; on a CPU it wants a C++ compiler.

    low: in bfloat16 with float32 weights, our way against autocast
    """
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    return [case for name in names for case in _case(spec, name, rounds, device, compiled, low)]


def _case(spec: Spec, name: str, rounds: int, device: torch.device, compiled: bool, low: bool) -> list[Case]:
    with tempfile.TemporaryDirectory() as scratch:
        recipe = load_recipe(spec, name, ["precision=mixed(compute = bf16)"] if low else [])
        folder = Path(scratch) / "build"
        compile_recipe(spec, recipe, folder, device=device.type)
        shape = shape_of(spec, name)
        batch = batch_of(shape, device)
        ours = [Contestant("eager", ours_of(folder, batch, device, False))]
        if compiled:
            ours.append(Contestant("compiled", ours_of(folder, batch, device, True)))
        if device.type == "cuda":
            ours.reverse()  # what runs by default comes first
        peers = _peers(folder, shape, batch, device, compiled, low)
        return _compare(name, ours, peers, rounds, device, LOW_TOLERANCE if low else TOLERANCE)


def _compare(
    name: str, ours: list[Contestant], peers: list[Contestant], rounds: int, device: torch.device, tolerance: float
) -> list[Case]:
    everyone = [*ours, *peers]
    steps: list[Step] = [_agreeing(contestant.make(), everyone[0], tolerance) for contestant in everyone]
    seconds = alternate(steps, rounds, device)
    del steps
    peaks = [peak_bytes(contestant.make, device) for contestant in everyone]
    return [
        Case(
            name,
            f"PyTorch {peer.name}",
            f"Partita {mine.name}",
            i == 0,
            seconds[i] / seconds[j],
            peaks[i] / peaks[j],
            seconds[i],
            seconds[j],
            peaks[i],
            peaks[j],
        )
        for i, mine in enumerate(ours)
        for j, peer in enumerate(peers, len(ours))
    ]


def _agreeing(step: Callable[[], torch.Tensor], reference: Contestant, tolerance: float) -> Step:
    loss, expected = float(step()), float(reference.make()())
    assert abs(loss - expected) <= tolerance * abs(expected), f"losses differ: {loss} and {expected}"
    return step


def shape_of(spec: Spec, name: str) -> Shape:
    """The sizes of a recipe's GPT-2, and of its batch."""
    recipe = load_recipe(spec, name)
    _, facts = elaborate_model(spec, recipe.model.name, size=recipe.model.size)
    size = {key: dim.size or 0 for key, dim in facts.dims.items()}
    return Shape(*(size[key] for key in "LDHFVN"), tokens=recipe.dims["T"], rows=recipe.batch)


def batch_of(shape: Shape, device: torch.device) -> dict[str, torch.Tensor]:
    """tokens[batch, T] and target[batch, T] in i64, the same each time."""
    generator = torch.Generator().manual_seed(SEED)
    size = (shape.rows, shape.tokens)
    ids = [torch.randint(shape.vocabulary, size, generator=generator).to(device) for _ in range(2)]
    return {"tokens": ids[0], "target": ids[1]}


def ours_of(
    folder: Path, batch: dict[str, torch.Tensor], device: torch.device, compiled: bool
) -> Callable[[], Callable[[], torch.Tensor]]:
    """Makes our step from a build folder; a call of it gives the loss."""

    def make() -> Callable[[], torch.Tensor]:
        executable = load(folder, device, compiled)
        store = initial_store(executable.build, SEED, device)
        return lambda: executable.run("step", store, [batch])["loss"]

    return make


def _peers(
    folder: Path, shape: Shape, batch: dict[str, torch.Tensor], device: torch.device, compiled: bool, low: bool
) -> list[Contestant]:
    executable: Executable = load(folder, device)

    def contestant(chunked: bool, through_compile: bool) -> Contestant:
        def make() -> Callable[[], torch.Tensor]:
            weights = initial_store(executable.build, SEED, device)
            step = peer_step(shape, weights, 1e-4, chunked=chunked, compiled=through_compile, device=device, low=low)
            return lambda: step(batch["tokens"], batch["target"])

        name = ("compiled" if through_compile else "eager") + (", chunked loss" if chunked else "")
        name += ", autocast" if low else ""
        return Contestant(name, make)

    losses = (False, True) if has_chunked_loss() else (False,)
    modes = (False, True) if compiled else (False,)
    return [contestant(chunked, mode) for mode in modes for chunked in losses]
