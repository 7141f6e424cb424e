"""The models of specs/models in tiny sizes: every dim of a spec's table of sizes has another small number here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.types import DType

from .spec_texts import model_spec

_TEXT = {"L": 2, "V": 13, "T": 6, "batch": 2}
_VIEW = {"D": 8, "H": 2, "F": 10}
_LATENT = {"D": 8, "H": 2, "K": 2, "N": 4, "W": 5, "Z": 6, "Q": 7}
_IMAGE = {"L": 2, "C": 3, "Y": 4, "X": 6, "P": 2, "Q": 3, "batch": 2}

#: The dims of each model, by (file, model).
DIMS: Mapping[tuple[str, str], Mapping[str, int]] = MappingProxyType(
    {
        ("autoencoder", "AutoEncoder"): {"C": 2, "Y": 8, "X": 16, "Z": 3, "A": 2, "B": 3, "N": 4, "batch": 2},
        ("bengio", "Bengio"): {"C": 3, "M": 4, "H": 5, "V": 11, "T": 5, "batch": 2},
        ("bert", "BERT"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 3, "M": 7},
        ("bert", "BERTEncoder"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 3, "M": 7},
        ("bloom", "BLOOM"): {**_TEXT, "D": 6, "H": 3, "F": 24},
        ("clip", "CLIP"): {**_IMAGE, **_VIEW, "W": 12, "J": 3, "U": 14, "V": 13, "N": 9, "Z": 5, "T": 6},
        ("convnext", "ConvNeXt"): {**dict.fromkeys("ABLM", 1), "C": 4, "N": 3, "I": 2, "Y": 32, "X": 32, "batch": 1},
        ("deepseek", "DeepSeek"): {**_TEXT, "L": 3, "A": 1, "F": 10, "U": 4, "E": 32, "C": 8, **_LATENT},
        ("falcon", "Falcon"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("gan", "GAN"): {"C": 2, "Y": 8, "X": 4, "Z": 3, "A": 2, "batch": 2},
        ("gemma2", "Gemma2"): {**_TEXT, "D": 8, "H": 4, "G": 2, "K": 6, "F": 10},
        ("gopher", "Gopher"): {**_TEXT, "D": 8, "H": 2, "K": 3, "F": 10},
        ("gpt", "GPT"): {**_TEXT, "D": 8, "H": 2, "F": 32, "N": 7},
        ("gpt2", "GPT2"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 7},
        ("gpt3", "GPT3"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 7},
        ("llama", "Llama"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("llama3", "Llama3"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("llama3", "Llama31"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("llama3", "Llama32"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("lora", "LlamaLoRA"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("lstm", "GRULanguageModel"): {"D": 4, "C": 5, "V": 7, "T": 5, "batch": 2},
        ("lstm", "LSTMLanguageModel"): {"D": 4, "C": 5, "V": 7, "T": 5, "batch": 2},
        ("mamba", "Mamba"): {**_TEXT, "D": 4, "I": 8, "N": 3, "R": 5},
        ("megatron", "Megatron"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 7},
        ("mistral", "Mistral"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("mixer", "Mixer"): {**_IMAGE, "D": 8, "U": 5, "F": 10, "N": 7},
        ("mixtral", "Mixtral"): {**_TEXT, "D": 8, "H": 4, "G": 2, "F": 6, "E": 5},
        ("opt", "OPT"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 7, "E": 6},
        ("palm", "PaLM"): {**_TEXT, "D": 8, "H": 3, "K": 4, "F": 10},
        ("pythia", "Pythia"): {**_TEXT, "D": 16, "H": 2, "F": 10},
        ("qwen2", "Qwen2"): {**_TEXT, "D": 16, "H": 4, "G": 2, "F": 10},
        ("qwen3", "Qwen3"): {**_TEXT, "D": 8, "H": 4, "G": 2, "K": 6, "F": 10},
        ("qwen3", "Qwen3MoE"): {**_TEXT, "D": 8, "H": 4, "G": 2, "K": 6, "F": 4, "E": 10},
        ("rnn", "RNNLanguageModel"): {"D": 4, "V": 7, "T": 5, "batch": 2},
        ("roberta", "RoBERTa"): {**_TEXT, "D": 8, "H": 2, "F": 10, "M": 9},
        ("roberta", "RoBERTaEncoder"): {**_TEXT, "D": 8, "H": 2, "F": 10, "M": 9},
        ("t5", "T5"): {**_TEXT, "D": 8, "H": 2, "K": 3, "F": 10, "B": 8, "S": 5},
        ("unet", "UNet"): {"C": 2, "Y": 8, "X": 16, "K": 2, "N": 8, "batch": 1},
        ("vae", "VAE"): {"I": 7, "F": 6, "Z": 3, "batch": 2},
        ("vit", "DeiT"): {**_IMAGE, "D": 8, "H": 2, "F": 10, "N": 5},
        ("vit", "ViT"): {**_IMAGE, "D": 8, "H": 2, "F": 10, "N": 5},
        ("whisper", "Whisper"): {**_TEXT, "D": 8, "H": 2, "F": 10, "N": 7, "M": 3, "A": 10},
    }
)

#: Rows of sizes that are made otherwise than the first, which is the one that is taken where nothing else is said.
OTHER_SIZES: tuple[tuple[str, str, str], ...] = (
    ("deepseek", "DeepSeek", "V2"),
    ("deepseek", "DeepSeek", "V3"),
    ("falcon", "Falcon", "40B"),
    ("llama3", "Llama3", "1B"),
    ("megatron", "Megatron", "530B"),
    ("opt", "OPT", "350M"),
    ("qwen2", "Qwen2", "7B"),
    ("qwen3", "Qwen3", "8B"),
)

#: What nobody can compute without a package of somebody else's: its kernel has no body.
FOREIGN: tuple[tuple[str, str], ...] = (("own_op", "Toy"),)


def tiny_model(
    file: str, model: str, dtype: DType = DType.F64, *, size: str | None = None, training: bool = False, **dims: int
) -> Graph:
    """A model's forward graph in its tiny size, changed by `dims`; its options are those of `size`."""
    chosen = {**DIMS[file, model], **dims}
    return elaborate_model(model_spec(file), model, size=size, dims=chosen, training=training, dtype=dtype)[0]
