"""The models of transformers with random weights that Partita's parameters can take.

In: the name of a model of specs/models. Out: their module, and for each parameter of ours the view of theirs that it is
(they keep matrices transposed, queries, keys and values in one, heads flattened). A view serves weights and gradients.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from samples.zoo import DIMS
from torch.overrides import TorchFunctionMode

from .hugging_face_models import DECODERS, OTHERS, Row

Tensor = torch.Tensor


@dataclass(frozen=True)
class Theirs:
    """Their module, and how each of our parameters lies in theirs."""

    net: torch.nn.Module
    views: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]
    inputs: Mapping[str, str]

    def weights(self) -> dict[str, Tensor]:
        """Their weights as our parameters."""
        known = dict(self.net.named_parameters())
        return {ours: view(known[name].detach()) for ours, (name, view) in self.views.items()}

    def gradients(
        self, inputs: Mapping[str, Tensor], loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, a loss of them, and its gradients by our parameters. `inputs` are under our names."""
        known = dict(self.net.named_parameters())
        given = {self.inputs[name]: tensor for name, tensor in inputs.items()}
        with _exactly(next(iter(known.values())).dtype):
            logits = self.net(**given).logits
            loss = loss_of(logits)
            found = dict(zip(known, torch.autograd.grad(loss, list(known.values())), strict=True))
        views = {ours: view(found[name]) for ours, (name, view) in self.views.items()}
        return logits.detach(), loss.detach(), views


def theirs(model: str, dtype: torch.dtype) -> Theirs:
    """A model in its tiny size, its weights drawn so that no part of it is nearly idle."""
    other = {**DECODERS, **OTHERS}[model]
    dims = sizes(other.file, model)
    with _exactly(dtype), _quiet():
        net = other.make(dims).to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * drawn)
    views = {ours: pair for row in other.rows for ours, pair in _views(row, dims)}
    return Theirs(net.eval(), views, other.inputs)


def sizes(file: str, model: str) -> dict[str, int]:
    """The tiny size of a model, with the dims that follow from others."""
    dims = dict(DIMS[file, model])
    if "Y" in dims:
        dims["T"] = 1 + dims["Y"] // dims["P"] * (dims["X"] // dims["Q"])
    return {"G": dims["H"], "K": dims["D"] // dims["H"], "O": dims["D"], **dims}


def _views(row: Row, dims: Mapping[str, int]) -> Iterator[tuple[str, tuple[str, Callable[[Tensor], Tensor]]]]:
    """A row of the table for every layer and every one of our names."""
    name, axes, ours, wanted = row
    head, _, rest = ours.partition("[")
    middle, _, tail = rest.partition("]")
    ours_all = [f"{head}{part}{tail}" for part in middle.split()] or [ours]
    for layer in range(dims["L"] if "{l}" in name else 1):
        for part, one in enumerate(ours_all):
            yield one.replace("{l}", str(layer)), (name.replace("{l}", str(layer)), _view(axes, wanted, part, dims))


def _view(axes: str, wanted: str, part: int, dims: Mapping[str, int]) -> Callable[[Tensor], Tensor]:
    theirs_axes = axes.split()
    shape = [int(axis) if axis.isdigit() else dims[axis] for axis in theirs_axes]
    kept = [axis for axis in theirs_axes if not axis.isdigit()]
    order = [kept.index(axis) for axis in wanted.split()]

    def view(tensor: Tensor) -> Tensor:
        whole = tensor.reshape(shape)
        for place, axis in enumerate(theirs_axes):
            if axis.isdigit():
                whole = whole.select(place, part)
        return whole.permute(order).contiguous()

    return view


# ---- their precision


class _Double(TorchFunctionMode):
    """They compute norms, angles and softmax in float32 whatever the weights are; here float32 is float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        wide = [torch.float64 if arg is torch.float32 else arg for arg in args]
        named = {key: torch.float64 if arg is torch.float32 else arg for key, arg in (kwargs or {}).items()}
        return torch.Tensor.double(args[0]) if func is torch.Tensor.float else func(*wide, **named)


@contextmanager
def _exactly(dtype: torch.dtype) -> Generator[None, None, None]:
    if dtype is not torch.float64:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """They warn that the ids of special tokens lie outside of so small a vocabulary."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
