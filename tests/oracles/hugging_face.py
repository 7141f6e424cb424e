"""The models of transformers, made from tiny configurations, with random weights that Partita's parameters can take.

In: the name of a model of specs/models. Out: their module, and for each parameter of ours the view of theirs that it is
(they keep matrices transposed, queries, keys and values in one, heads flattened). A view serves weights and gradients.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from samples.zoo import DIMS
from torch.overrides import TorchFunctionMode

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers

Tensor = torch.Tensor
#: Their name, its axes as they lie in memory (a number: parts of it are several of ours), our names, our axes.

Row = tuple[str, str, str, str]

_GPT2: tuple[Row, ...] = (
    ("transformer.wte.weight", "V D", "wte.table", "V D"),
    ("transformer.wpe.weight", "N D", "wpe.table", "N D"),
    ("transformer.h.{l}.ln_1.weight", "D", "blocks.{l}.ln1.gain", "D"),
    ("transformer.h.{l}.ln_1.bias", "D", "blocks.{l}.ln1.b", "D"),
    ("transformer.h.{l}.attn.c_attn.weight", "D 3 H K", "blocks.{l}.attn.[q k v].w", "D H K"),
    ("transformer.h.{l}.attn.c_attn.bias", "3 H K", "blocks.{l}.attn.[q k v].b", "H K"),
    ("transformer.h.{l}.attn.c_proj.weight", "H K D", "blocks.{l}.attn.o.w", "H K D"),
    ("transformer.h.{l}.attn.c_proj.bias", "D", "blocks.{l}.attn.o.b", "D"),
    ("transformer.h.{l}.ln_2.weight", "D", "blocks.{l}.ln2.gain", "D"),
    ("transformer.h.{l}.ln_2.bias", "D", "blocks.{l}.ln2.b", "D"),
    ("transformer.h.{l}.mlp.c_fc.weight", "D F", "blocks.{l}.mlp.up.w", "D F"),
    ("transformer.h.{l}.mlp.c_fc.bias", "F", "blocks.{l}.mlp.up.b", "F"),
    ("transformer.h.{l}.mlp.c_proj.weight", "F D", "blocks.{l}.mlp.down.w", "F D"),
    ("transformer.h.{l}.mlp.c_proj.bias", "D", "blocks.{l}.mlp.down.b", "D"),
    ("transformer.ln_f.weight", "D", "ln_f.gain", "D"),
    ("transformer.ln_f.bias", "D", "ln_f.b", "D"),
)
_LLAMA_LAYER: tuple[Row, ...] = (
    ("model.embed_tokens.weight", "V D", "embed.table", "V D"),
    ("model.layers.{l}.input_layernorm.weight", "D", "layers.{l}.norm1.gain", "D"),
    ("model.layers.{l}.self_attn.q_proj.weight", "H K D", "layers.{l}.attn.q.w", "D H K"),
    ("model.layers.{l}.self_attn.k_proj.weight", "G K D", "layers.{l}.attn.k.w", "D G K"),
    ("model.layers.{l}.self_attn.v_proj.weight", "G K D", "layers.{l}.attn.v.w", "D G K"),
    ("model.layers.{l}.self_attn.o_proj.weight", "D H K", "layers.{l}.attn.o.w", "H K D"),
    ("model.layers.{l}.mlp.gate_proj.weight", "F D", "layers.{l}.mlp.gate.w", "D F"),
    ("model.layers.{l}.mlp.up_proj.weight", "F D", "layers.{l}.mlp.up.w", "D F"),
    ("model.layers.{l}.mlp.down_proj.weight", "D F", "layers.{l}.mlp.down.w", "F D"),
    ("model.norm.weight", "D", "norm.gain", "D"),
)
_LLAMA: tuple[Row, ...] = (
    *_LLAMA_LAYER,
    ("model.layers.{l}.post_attention_layernorm.weight", "D", "layers.{l}.norm2.gain", "D"),
    ("lm_head.weight", "V D", "head.w", "D V"),
)
_GEMMA2: tuple[Row, ...] = (
    *_LLAMA_LAYER,
    ("model.layers.{l}.post_attention_layernorm.weight", "D", "layers.{l}.norm2.gain", "D"),
    ("model.layers.{l}.pre_feedforward_layernorm.weight", "D", "layers.{l}.norm3.gain", "D"),
    ("model.layers.{l}.post_feedforward_layernorm.weight", "D", "layers.{l}.norm4.gain", "D"),
)
_BLOOM: tuple[Row, ...] = (
    ("transformer.word_embeddings.weight", "V D", "embed.table", "V D"),
    ("transformer.word_embeddings_layernorm.weight", "D", "ln_embed.gain", "D"),
    ("transformer.word_embeddings_layernorm.bias", "D", "ln_embed.b", "D"),
    ("transformer.h.{l}.input_layernorm.weight", "D", "layers.{l}.ln1.gain", "D"),
    ("transformer.h.{l}.input_layernorm.bias", "D", "layers.{l}.ln1.b", "D"),
    ("transformer.h.{l}.self_attention.query_key_value.weight", "H 3 K D", "layers.{l}.attn.[q k v].w", "D H K"),
    ("transformer.h.{l}.self_attention.query_key_value.bias", "H 3 K", "layers.{l}.attn.[q k v].b", "H K"),
    ("transformer.h.{l}.self_attention.dense.weight", "D H K", "layers.{l}.attn.o.w", "H K D"),
    ("transformer.h.{l}.self_attention.dense.bias", "D", "layers.{l}.attn.o.b", "D"),
    ("transformer.h.{l}.post_attention_layernorm.weight", "D", "layers.{l}.ln2.gain", "D"),
    ("transformer.h.{l}.post_attention_layernorm.bias", "D", "layers.{l}.ln2.b", "D"),
    ("transformer.h.{l}.mlp.dense_h_to_4h.weight", "F D", "layers.{l}.mlp.up.w", "D F"),
    ("transformer.h.{l}.mlp.dense_h_to_4h.bias", "F", "layers.{l}.mlp.up.b", "F"),
    ("transformer.h.{l}.mlp.dense_4h_to_h.weight", "D F", "layers.{l}.mlp.down.w", "F D"),
    ("transformer.h.{l}.mlp.dense_4h_to_h.bias", "D", "layers.{l}.mlp.down.b", "D"),
    ("transformer.ln_f.weight", "D", "ln.gain", "D"),
    ("transformer.ln_f.bias", "D", "ln.b", "D"),
)
Made = Callable[[Mapping[str, int]], torch.nn.Module]


def _gpt2(n: Mapping[str, int]) -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=n["V"], n_positions=n["N"], n_embd=n["D"], n_layer=n["L"], n_head=n["H"], n_inner=n["F"],
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_new", use_cache=False,
        )
    )  # fmt: skip


def _llama(n: Mapping[str, int], **rope: object) -> torch.nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=n["V"], hidden_size=n["D"], intermediate_size=n["F"], num_hidden_layers=n["L"],
            num_attention_heads=n["H"], num_key_value_heads=n["G"], rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0, **rope}, use_cache=False,
        )
    )  # fmt: skip


def _llama31(n: Mapping[str, int]) -> torch.nn.Module:
    return _llama(
        n, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )  # fmt: skip


def _gemma2(n: Mapping[str, int]) -> torch.nn.Module:
    config = transformers.Gemma2Config(
        vocab_size=n["V"], hidden_size=n["D"], intermediate_size=n["F"], num_hidden_layers=n["L"],
        num_attention_heads=n["H"], num_key_value_heads=n["G"], head_dim=n["K"], rms_norm_eps=1e-6,
        query_pre_attn_scalar=256, sliding_window=4096, use_cache=False,
        pad_token_id=None,  # else the embedding of that id would have no gradient
    )  # fmt: skip
    net = transformers.Gemma2ForCausalLM(config)
    net.set_attn_implementation("eager")  # the one that caps the scores
    return net


def _bloom(n: Mapping[str, int]) -> torch.nn.Module:
    assert n["F"] == 4 * n["D"], "their hidden dim is four times the model's"
    return transformers.BloomForCausalLM(
        transformers.BloomConfig(
            vocab_size=n["V"], hidden_size=n["D"], n_layer=n["L"], n_head=n["H"], use_cache=False,
            hidden_dropout=0.0, attention_dropout=0.0,
        )
    )  # fmt: skip


_THEIRS: Mapping[str, tuple[str, Made, tuple[Row, ...]]] = MappingProxyType(
    {
        "GPT2": ("gpt2", _gpt2, _GPT2),
        "Llama3": ("llama3", _llama, _LLAMA),
        "Llama31": ("llama3", _llama31, _LLAMA),
        "Gemma2": ("gemma2", _gemma2, _GEMMA2),
        "BLOOM": ("bloom", _bloom, _BLOOM),
    }
)
MODELS = tuple(_THEIRS)


@dataclass(frozen=True)
class Theirs:
    """Their module, and how each of our parameters lies in theirs."""

    net: torch.nn.Module
    views: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]

    def weights(self) -> dict[str, Tensor]:
        """Their weights as our parameters."""
        known = dict(self.net.named_parameters())
        return {ours: view(known[name].detach()) for ours, (name, view) in self.views.items()}

    def gradients(self, tokens: Tensor, target: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, the mean cross-entropy of `target`, and its gradients by our parameters."""
        known = dict(self.net.named_parameters())
        with _exactly(next(iter(known.values())).dtype):
            logits = self.net(tokens).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
            found = dict(zip(known, torch.autograd.grad(loss, list(known.values())), strict=True))
        views = {ours: view(found[name]) for ours, (name, view) in self.views.items()}
        return logits.detach(), loss.detach(), views


def theirs(model: str, dtype: torch.dtype) -> Theirs:
    """A model in its tiny size, its weights drawn so that no part of it is nearly idle."""
    file, make, rows = _THEIRS[model]
    dims = sizes(file, model)
    with _exactly(dtype), _quiet():
        net = make(dims).to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * drawn)
    return Theirs(net.eval(), {ours: pair for row in rows for ours, pair in _views(row, dims)})


def sizes(file: str, model: str) -> dict[str, int]:
    """The tiny size of a model, with the dims that follow from others."""
    dims = dict(DIMS[file, model])
    return {"G": dims["H"], "K": dims["D"] // dims["H"], **dims}


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
