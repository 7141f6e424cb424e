"""Text from a trained model: the prompt's bytes as ids, ids drawn one by one, bytes as text again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ..compiler.elaborate.recipe import Sample
from ..runtime.generate import Sampling, generate, load_weights
from ..runtime.train import open_build


def sample_ids(build: Path, checkpoint: Path, sample: Sample, device: str) -> Iterator[int]:
    """The ids that follow the prompt."""
    executable = open_build(build, torch.device(device))
    store = load_weights(executable, checkpoint)
    sampling = Sampling(sample.temperature, sample.top_k, sample.seed)
    return generate(executable, store, list(sample.prompt.encode()), sample.length, sampling)


def sample_text(build: Path, checkpoint: Path, sample: Sample, device: str) -> str:
    """Prompt and continuation; bytes that are no text show as the replacement character."""
    drawn = bytes(value for value in sample_ids(build, checkpoint, sample, device) if value < 256)
    return sample.prompt + drawn.decode(errors="replace")
