"""What a trained model goes on with: the prompt as ids, ids drawn one by one, and bytes as text again.

A model of text or of a corpus has bytes for ids; one of tokens has ids that nothing here can read: they stay numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ..compiler.elaborate.recipe import Sample
from ..runtime.begin import open_build
from ..runtime.generate import Sampling, generate, load_weights
from .fault import CommandFault


def sample_ids(
    build: Path, checkpoint: Path, sample: Sample, device: str, kernels: tuple[str, ...] = ()
) -> tuple[Iterator[int], bool]:
    """The ids that follow the prompt, and whether they are bytes."""
    executable = open_build(build, torch.device(device), kernels=kernels)
    are_bytes = executable.build.recipe.get("source", {}).get("kind") != "tokens"
    prompt = list(sample.prompt.encode()) if are_bytes else prompt_ids(sample.prompt)
    store = load_weights(executable, checkpoint)
    sampling = Sampling(sample.temperature, sample.top_k, sample.seed)
    return generate(executable, store, prompt, sample.length, sampling), are_bytes


def prompt_ids(prompt: str) -> list[int]:
    """Ids written as numbers."""
    words = prompt.split()
    if not words or not all(word.isdecimal() and len(word) < 19 for word in words):
        raise CommandFault("the model was trained on tokens, so a prompt is ids", 'for instance --prompt "17 4 25"')
    return [int(word) for word in words]


def sample_text(build: Path, checkpoint: Path, sample: Sample, device: str, kernels: tuple[str, ...] = ()) -> str:
    """Prompt and continuation; bytes that are no text show as the replacement character."""
    drawn, are_bytes = sample_ids(build, checkpoint, sample, device, kernels)
    if not are_bytes:
        return " ".join([sample.prompt.strip(), *map(str, drawn)])
    return sample.prompt + bytes(value for value in drawn if value < 256).decode(errors="replace")
