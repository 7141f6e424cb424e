"""Which models of transformers the zoo is compared with, and what a comparison must know beside the weight maps.

Names of tensors, their layouts and configurations stand in the specs' own `weights` maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .values import Array

IDS = MappingProxyType({"tokens": "input_ids"})
_END = 12
Ready = Callable[[Any], None]
Output = Callable[[Any, Any], Any]  # (net, its result) -> a tensor


def _called(name: str) -> Output:
    return lambda net, result: getattr(result, name)


ENCODED: Mapping[str, Output] = MappingProxyType(
    {"hidden": _called("last_hidden_state"), "pooled": _called("pooler_output")}
)
LOGITS: Mapping[str, Output] = MappingProxyType({"logits": _called("logits")})


def _nothing(what: Any) -> None:
    """Nothing needs to be done."""


def _unpadded(values: dict[str, Array]) -> None:
    """The id of padding is nowhere: positions would not count it."""
    values["tokens"][values["tokens"] == 1] = 0


def _ended(values: dict[str, Array]) -> None:
    """Rows of text end with the largest id, and have it nowhere else."""
    ids = values["text"]
    ids[:, :-1] %= _END
    ids[:, -1] = _END


@dataclass(frozen=True)
class Other:
    """A model of theirs: the file of ours, their names of our inputs and outputs.

    `ready` chooses one of their ways to compute; `told`: what their configuration is told for the comparison alone;
    `dims` change the tiny size and `options` the model; `given` makes of random inputs such as they take.
    """

    file: str
    inputs: Mapping[str, str] = field(default_factory=lambda: IDS)
    outputs: Mapping[str, Output] = field(default_factory=lambda: LOGITS)
    ready: Ready = _nothing
    told: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    dims: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    options: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    given: Callable[[dict[str, Array]], None] = _nothing


def parts(key: str) -> tuple[str, str | None]:
    """`Llama3.1B` as the model and the row of its sizes that says which options it has; the dims are tiny anyway."""
    model, _, size = key.partition(".")
    return model, size or None


#: Next-token models by ours' name, some also by a row of their sizes.
DECODERS: Mapping[str, Other] = MappingProxyType(
    {
        "GPT2": Other("gpt2", options={"drop": 0}),
        "Llama3": Other("llama3"),
        "Llama31": Other("llama3"),
        "Llama32.1B": Other("llama3"),
        "Gemma2": Other("gemma2", ready=lambda net: net.set_attn_implementation("eager")),  # the one that caps scores
        "Mixtral": Other("mixtral", ready=lambda net: net.set_experts_implementation("eager")),  # it knows float64
        "BLOOM": Other("bloom"),
        "Falcon": Other("falcon"),
        "Falcon.40B": Other("falcon"),
        "DeepSeek": Other("deepseek", ready=lambda net: net.set_experts_implementation("eager")),
        "DeepSeek.V2": Other("deepseek", ready=lambda net: net.set_experts_implementation("eager")),
        "DeepSeek.V3": Other("deepseek", ready=lambda net: net.set_experts_implementation("eager")),
        "GPT": Other("gpt", options={"drop": 0}),
        "Llama": Other("llama"),
        "Mamba": Other("mamba"),
        "Mistral": Other("mistral", options={"window": 3}),
        "OPT": Other("opt", options={"drop": 0}),
        "OPT.350M": Other("opt", options={"drop": 0}),
        "Pythia": Other("pythia"),
        "Qwen2": Other("qwen2"),
        "Qwen2.7B": Other("qwen2"),
        "Qwen3": Other("qwen3"),
        "Qwen3MoE": Other("qwen3", ready=lambda net: net.set_experts_implementation("eager")),
    }
)
#: The others.
OTHERS: Mapping[str, Other] = MappingProxyType(
    {
        "BERT": Other("bert", {"tokens": "input_ids", "segments": "token_type_ids"}),
        "BERTEncoder": Other("bert", {"tokens": "input_ids", "segments": "token_type_ids"}, ENCODED),
        "RoBERTa": Other("roberta", given=_unpadded),
        "RoBERTaEncoder": Other("roberta", outputs=ENCODED, given=_unpadded),
        "Whisper": Other("whisper", {"audio": "input_features", "tokens": "decoder_input_ids"}),
        "ConvNeXt": Other("convnext", {"image": "pixel_values"}),
        "T5": Other("t5", {"source": "input_ids", "tokens": "decoder_input_ids"}),
        "ViT": Other("vit", {"image": "pixel_values"}),
        "DeiT": Other(
            "vit",
            {"image": "pixel_values"},
            {"logits": _called("cls_logits"), "distilled": _called("distillation_logits")},
        ),
        "CLIP": Other(
            "clip",
            {"image": "pixel_values", "text": "input_ids"},
            {
                "zi": _called("image_embeds"),
                "zt": _called("text_embeds"),
                "scale": lambda net, result: net.logit_scale.exp(),
            },
            told={"text_config": {"eos_token_id": _END}},
            dims={"Y": 4, "X": 4, "P": 2, "Q": 2},  # theirs are square
            given=_ended,
        ),
    }
)
