"""Models of transformers in tiny configurations, and tables of how our parameters lie in theirs.

The tables are the `weights` maps of the specs, written out as axes: theirs as they lie in memory, then ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers

#: Their name, its axes as they lie in memory (a number: parts of it are several of ours), our names, our axes.
Row = tuple[str, str, str, str]
Made = Callable[[Mapping[str, int]], torch.nn.Module]


@dataclass(frozen=True)
class Other:
    """A model of theirs: the file of ours, how it is made of the dims, the table, their names of our inputs."""

    file: str
    make: Made
    rows: tuple[Row, ...]
    inputs: Mapping[str, str]


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
_LLAMA_ATTENTION: tuple[Row, ...] = (
    ("model.embed_tokens.weight", "V D", "embed.table", "V D"),
    ("model.layers.{l}.input_layernorm.weight", "D", "layers.{l}.norm1.gain", "D"),
    ("model.layers.{l}.self_attn.q_proj.weight", "H K D", "layers.{l}.attn.q.w", "D H K"),
    ("model.layers.{l}.self_attn.k_proj.weight", "G K D", "layers.{l}.attn.k.w", "D G K"),
    ("model.layers.{l}.self_attn.v_proj.weight", "G K D", "layers.{l}.attn.v.w", "D G K"),
    ("model.layers.{l}.self_attn.o_proj.weight", "D H K", "layers.{l}.attn.o.w", "H K D"),
    ("model.norm.weight", "D", "norm.gain", "D"),
)
_LLAMA_LAYER: tuple[Row, ...] = (
    *_LLAMA_ATTENTION,
    ("model.layers.{l}.mlp.gate_proj.weight", "F D", "layers.{l}.mlp.gate.w", "D F"),
    ("model.layers.{l}.mlp.up_proj.weight", "F D", "layers.{l}.mlp.up.w", "D F"),
    ("model.layers.{l}.mlp.down_proj.weight", "D F", "layers.{l}.mlp.down.w", "F D"),
)
_LLAMA: tuple[Row, ...] = (
    *_LLAMA_LAYER,
    ("model.layers.{l}.post_attention_layernorm.weight", "D", "layers.{l}.norm2.gain", "D"),
    ("lm_head.weight", "V D", "head.w", "D V"),
)
_MIXTRAL: tuple[Row, ...] = (
    *_LLAMA_ATTENTION,
    ("model.layers.{l}.post_attention_layernorm.weight", "D", "layers.{l}.norm2.gain", "D"),
    ("model.layers.{l}.mlp.gate.weight", "E D", "layers.{l}.moe.router.w", "D E"),
    ("model.layers.{l}.mlp.experts.gate_up_proj", "E 2 F D", "layers.{l}.moe.experts.[gate up].w", "E D F"),
    ("model.layers.{l}.mlp.experts.down_proj", "E D F", "layers.{l}.moe.experts.down.w", "E F D"),
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
_BERT: tuple[Row, ...] = (
    ("bert.embeddings.word_embeddings.weight", "V D", "word.table", "V D"),
    ("bert.embeddings.position_embeddings.weight", "M D", "pos.table", "M D"),
    ("bert.embeddings.token_type_embeddings.weight", "N D", "segment.table", "N D"),
    ("bert.embeddings.LayerNorm.weight", "D", "ln.gain", "D"),
    ("bert.embeddings.LayerNorm.bias", "D", "ln.b", "D"),
    ("bert.encoder.layer.{l}.attention.self.query.weight", "H K D", "layers.{l}.attn.q.w", "D H K"),
    ("bert.encoder.layer.{l}.attention.self.query.bias", "H K", "layers.{l}.attn.q.b", "H K"),
    ("bert.encoder.layer.{l}.attention.self.key.weight", "H K D", "layers.{l}.attn.k.w", "D H K"),
    ("bert.encoder.layer.{l}.attention.self.key.bias", "H K", "layers.{l}.attn.k.b", "H K"),
    ("bert.encoder.layer.{l}.attention.self.value.weight", "H K D", "layers.{l}.attn.v.w", "D H K"),
    ("bert.encoder.layer.{l}.attention.self.value.bias", "H K", "layers.{l}.attn.v.b", "H K"),
    ("bert.encoder.layer.{l}.attention.output.dense.weight", "D H K", "layers.{l}.attn.o.w", "H K D"),
    ("bert.encoder.layer.{l}.attention.output.dense.bias", "D", "layers.{l}.attn.o.b", "D"),
    ("bert.encoder.layer.{l}.attention.output.LayerNorm.weight", "D", "layers.{l}.ln1.gain", "D"),
    ("bert.encoder.layer.{l}.attention.output.LayerNorm.bias", "D", "layers.{l}.ln1.b", "D"),
    ("bert.encoder.layer.{l}.intermediate.dense.weight", "F D", "layers.{l}.mlp.up.w", "D F"),
    ("bert.encoder.layer.{l}.intermediate.dense.bias", "F", "layers.{l}.mlp.up.b", "F"),
    ("bert.encoder.layer.{l}.output.dense.weight", "D F", "layers.{l}.mlp.down.w", "F D"),
    ("bert.encoder.layer.{l}.output.dense.bias", "D", "layers.{l}.mlp.down.b", "D"),
    ("bert.encoder.layer.{l}.output.LayerNorm.weight", "D", "layers.{l}.ln2.gain", "D"),
    ("bert.encoder.layer.{l}.output.LayerNorm.bias", "D", "layers.{l}.ln2.b", "D"),
    ("cls.predictions.bias", "V", "bias", "V"),
    ("cls.predictions.transform.dense.weight", "O D", "dense.w", "D O"),
    ("cls.predictions.transform.dense.bias", "D", "dense.b", "D"),
    ("cls.predictions.transform.LayerNorm.weight", "D", "ln_head.gain", "D"),
    ("cls.predictions.transform.LayerNorm.bias", "D", "ln_head.b", "D"),
)
_VIT: tuple[Row, ...] = (
    ("vit.embeddings.cls_token", "D", "cls", "D"),
    ("vit.embeddings.position_embeddings", "T D", "pos", "T D"),
    ("vit.embeddings.patch_embeddings.projection.weight", "D C P Q", "patch.w", "C P Q D"),
    ("vit.embeddings.patch_embeddings.projection.bias", "D", "patch.b", "D"),
    *(
        row
        for one in "qkv"
        for row in (
            (f"vit.layers.{{l}}.attention.{one}_proj.weight", "H K D", f"layers.{{l}}.attn.{one}.w", "D H K"),
            (f"vit.layers.{{l}}.attention.{one}_proj.bias", "H K", f"layers.{{l}}.attn.{one}.b", "H K"),
        )
    ),
    ("vit.layers.{l}.attention.o_proj.weight", "D H K", "layers.{l}.attn.o.w", "H K D"),
    ("vit.layers.{l}.attention.o_proj.bias", "D", "layers.{l}.attn.o.b", "D"),
    ("vit.layers.{l}.layernorm_before.weight", "D", "layers.{l}.ln1.gain", "D"),
    ("vit.layers.{l}.layernorm_before.bias", "D", "layers.{l}.ln1.b", "D"),
    ("vit.layers.{l}.layernorm_after.weight", "D", "layers.{l}.ln2.gain", "D"),
    ("vit.layers.{l}.layernorm_after.bias", "D", "layers.{l}.ln2.b", "D"),
    ("vit.layers.{l}.mlp.fc1.weight", "F D", "layers.{l}.mlp.up.w", "D F"),
    ("vit.layers.{l}.mlp.fc1.bias", "F", "layers.{l}.mlp.up.b", "F"),
    ("vit.layers.{l}.mlp.fc2.weight", "D F", "layers.{l}.mlp.down.w", "F D"),
    ("vit.layers.{l}.mlp.fc2.bias", "D", "layers.{l}.mlp.down.b", "D"),
    ("vit.layernorm.weight", "D", "ln.gain", "D"),
    ("vit.layernorm.bias", "D", "ln.b", "D"),
    ("classifier.weight", "N D", "head.w", "D N"),
    ("classifier.bias", "N", "head.b", "N"),
)


def _t5_attention(stack: str, place: str, ours: str) -> tuple[Row, ...]:
    name = f"{stack}.block.{{l}}.layer.{place}"
    heads = tuple((f"{name}.{one}.weight", "H K D", f"{ours}.{one}.w", "D H K") for one in "qkv")
    return (*heads, (f"{name}.o.weight", "D H K", f"{ours}.o.w", "H K D"))


_T5: tuple[Row, ...] = (
    ("shared.weight", "V D", "embed.table", "V D"),
    ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "B H", "enc_bias", "B H"),
    ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "B H", "dec_bias", "B H"),
    *_t5_attention("encoder", "0.SelfAttention", "enc.{l}.attn"),
    *_t5_attention("decoder", "0.SelfAttention", "dec.{l}.attn"),
    *_t5_attention("decoder", "1.EncDecAttention", "dec.{l}.cross"),
    ("encoder.block.{l}.layer.0.layer_norm.weight", "D", "enc.{l}.norm1.gain", "D"),
    ("encoder.block.{l}.layer.1.layer_norm.weight", "D", "enc.{l}.norm2.gain", "D"),
    ("decoder.block.{l}.layer.0.layer_norm.weight", "D", "dec.{l}.norm1.gain", "D"),
    ("decoder.block.{l}.layer.1.layer_norm.weight", "D", "dec.{l}.norm2.gain", "D"),
    ("decoder.block.{l}.layer.2.layer_norm.weight", "D", "dec.{l}.norm3.gain", "D"),
    ("encoder.block.{l}.layer.1.DenseReluDense.wi.weight", "F D", "enc.{l}.mlp.up.w", "D F"),
    ("encoder.block.{l}.layer.1.DenseReluDense.wo.weight", "D F", "enc.{l}.mlp.down.w", "F D"),
    ("decoder.block.{l}.layer.2.DenseReluDense.wi.weight", "F D", "dec.{l}.mlp.up.w", "D F"),
    ("decoder.block.{l}.layer.2.DenseReluDense.wo.weight", "D F", "dec.{l}.mlp.down.w", "F D"),
    ("encoder.final_layer_norm.weight", "D", "enc_norm.gain", "D"),
    ("decoder.final_layer_norm.weight", "D", "dec_norm.gain", "D"),
)


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


def _mixtral(n: Mapping[str, int]) -> torch.nn.Module:
    config = transformers.MixtralConfig(
        vocab_size=n["V"], hidden_size=n["D"], intermediate_size=n["F"], num_hidden_layers=n["L"],
        num_attention_heads=n["H"], num_key_value_heads=n["G"], num_local_experts=n["E"], num_experts_per_tok=2,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, use_cache=False,
        tie_word_embeddings=False, pad_token_id=None,
    )  # fmt: skip
    net = transformers.MixtralForCausalLM(config)
    net.set_experts_implementation("eager")  # the one that knows float64
    return net


def _bloom(n: Mapping[str, int]) -> torch.nn.Module:
    assert n["F"] == 4 * n["D"], "their hidden dim is four times the model's"
    return transformers.BloomForCausalLM(
        transformers.BloomConfig(
            vocab_size=n["V"], hidden_size=n["D"], n_layer=n["L"], n_head=n["H"], use_cache=False,
            hidden_dropout=0.0, attention_dropout=0.0,
        )
    )  # fmt: skip


def _bert(n: Mapping[str, int]) -> torch.nn.Module:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=n["V"], hidden_size=n["D"], num_hidden_layers=n["L"], num_attention_heads=n["H"],
            intermediate_size=n["F"], max_position_embeddings=n["M"], type_vocab_size=n["N"],
            hidden_act="gelu", layer_norm_eps=1e-12, pad_token_id=None,
        )
    )  # fmt: skip


def _vit(n: Mapping[str, int]) -> torch.nn.Module:
    config = transformers.ViTConfig(
        hidden_size=n["D"], num_hidden_layers=n["L"], num_attention_heads=n["H"], intermediate_size=n["F"],
        num_channels=n["C"], image_size=(n["Y"], n["X"]), patch_size=(n["P"], n["Q"]),
        hidden_act="gelu", layer_norm_eps=1e-12,
    )  # fmt: skip
    config.num_labels = n["N"]
    return transformers.ViTForImageClassification(config)


def _t5(n: Mapping[str, int]) -> torch.nn.Module:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=n["V"], d_model=n["D"], d_kv=n["K"], d_ff=n["F"], num_layers=n["L"], num_heads=n["H"],
            relative_attention_num_buckets=n["B"], relative_attention_max_distance=128, feed_forward_proj="relu",
            layer_norm_epsilon=1e-6, use_cache=False, pad_token_id=None,
        )
    )  # fmt: skip


#: Next-token models by ours' name: the spec's file, how theirs is made, the table.
DECODERS: Mapping[str, Other] = MappingProxyType(
    {
        "GPT2": Other("gpt2", _gpt2, _GPT2, {"tokens": "input_ids"}),
        "Llama3": Other("llama3", _llama, _LLAMA, {"tokens": "input_ids"}),
        "Llama31": Other("llama3", _llama31, _LLAMA, {"tokens": "input_ids"}),
        "Gemma2": Other("gemma2", _gemma2, _GEMMA2, {"tokens": "input_ids"}),
        "Mixtral": Other("mixtral", _mixtral, _MIXTRAL, {"tokens": "input_ids"}),
        "BLOOM": Other("bloom", _bloom, _BLOOM, {"tokens": "input_ids"}),
    }
)
#: The others.
OTHERS: Mapping[str, Other] = MappingProxyType(
    {
        "BERT": Other("bert", _bert, _BERT, {"tokens": "input_ids", "segments": "token_type_ids"}),
        "T5": Other("t5", _t5, _T5, {"source": "input_ids", "tokens": "decoder_input_ids"}),
        "ViT": Other("vit", _vit, _VIT, {"image": "pixel_values"}),
    }
)
