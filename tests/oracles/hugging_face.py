"""The models of transformers with random weights that Partita's parameters can take.

In: the name of a model of specs/models. Out: their module, made by the configuration of the spec's weight map, and its
weights and gradients as our parameters, through files that it writes and that map. So the map is what is tested.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from partita.compiler.elaborate.weights import weight_map
from partita.runtime.safetensors_files import open_files
from partita.runtime.weights import WeightMap, fitted, from_plain
from samples.spec_texts import model_spec
from samples.zoo import DIMS
from torch.overrides import TorchFunctionMode

from .hugging_face_models import DECODERS, OTHERS, Other, parts

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers
from transformers.utils import logging as their_logging

Tensor = torch.Tensor
their_logging.disable_progress_bar()


@dataclass(frozen=True)
class Theirs:
    """Their module, and the map between their tensors and our parameters."""

    other: Other
    net: Any
    weights_map: WeightMap

    def weights(self) -> dict[str, Tensor]:
        """Their weights as our parameters and states."""
        kind = next(iter(self.net.parameters())).dtype
        with tempfile.TemporaryDirectory() as folder, _quiet():
            self.net.save_pretrained(folder)
            source = fitted(open_files(Path(folder)), self.weights_map)
            return {name: source.parameter(name, kind) for name in source.parameters}

    def gradients(
        self, inputs: Mapping[str, Tensor], loss_of: Callable[[dict[str, Tensor]], Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Outputs under our names, a loss of them, its gradients by our parameters. `inputs` are under our names."""
        parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        given = {self.other.inputs[name]: tensor for name, tensor in inputs.items()}
        with _exactly(parameters[0].dtype):
            result = self.net(**given)
            outputs = {ours: output(self.net, result) for ours, output in self.other.outputs.items()}
            loss = loss_of(outputs)
            found = cast("tuple[Tensor | None, ...]", torch.autograd.grad(loss, parameters, allow_unused=True))
        kept = [parameter.data for parameter in parameters]
        try:
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.data = torch.zeros_like(parameter) if gradient is None else gradient
            views = self.weights()  # a gradient lies as its weight does
        finally:
            for parameter, data in zip(parameters, kept, strict=True):
                parameter.data = data
        gradients = {name: view for name, view in views.items() if name not in self.weights_map.states}
        return {name: tensor.detach() for name, tensor in outputs.items()}, loss.detach(), gradients


def tiny_map(model: str) -> WeightMap:
    """The weight map of a model in its tiny size."""
    other, (name, size) = {**DECODERS, **OTHERS}[model], parts(model)
    dims = {**DIMS[other.file, name], **other.dims}
    return from_plain(weight_map(model_spec(other.file), name, size=size, dims=dims, options=other.options).plain())


def theirs(model: str, dtype: torch.dtype) -> Theirs:
    """A model in its tiny size, its weights drawn so that no part of it is nearly idle."""
    other, weights = {**DECODERS, **OTHERS}[model], tiny_map(model)
    with _exactly(dtype), _quiet(), torch.random.fork_rng():
        torch.manual_seed(7)
        net = make(weights.config, other).to(dtype)
    other.ready(net)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.requires_grad:  # sinusoids
                continue
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * drawn)
        for buffer in _kept_buffers(net):
            buffer.add_(0.3 * torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
    return Theirs(other, net.eval(), weights)


def _kept_buffers(net: Any) -> list[Tensor]:
    """What a file holds beside the parameters."""
    parameters = dict(net.named_parameters(remove_duplicate=False))
    kept = net.state_dict(keep_vars=True).items()
    return [one for name, one in kept if name not in parameters and one.is_floating_point()]


def make(config: Mapping[str, Any], other: Other) -> Any:
    """Their module by a configuration, as they read it from a file."""
    whole: dict[str, Any] = {"pad_token_id": None, **config, "use_cache": False}  # a padding id has no gradient
    for key, value in other.told.items():
        whole[key] = {**config.get(key, {}), **value} if isinstance(value, Mapping) else value
    made = transformers.AutoConfig.for_model(str(config["model_type"])).__class__.from_dict(whole)
    return getattr(transformers, config["architectures"][0])(made)


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
