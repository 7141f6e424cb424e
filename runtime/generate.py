"""Samples from a trained build: ids in, ids out one at a time, by the `predict` program over a window of T ids.

The window's ids stand at its left, and the logits are read at the last of them: what stands to the right does not count
for a causal model. Once the window is full it slides. There is no cache: every id costs one whole window. The draw at a
position follows from (seed, position) alone, so the same request gives the same ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from . import checkpoint
from .execute import DTYPES
from .fault import RuntimeFault
from .feed import Executable
from .program import Input, Program, Run
from .random import UNIFORM_STREAM, key_words, row_bits, row_keys, unit
from .sources import out_of_range
from .state import Store, tensors_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an id is drawn. `temperature` 0 takes the likeliest; `top_k` 0 draws from all."""

    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0


def load_weights(executable: Executable, path: Path, program: str = "predict") -> Store:
    """What a program reads of a checkpoint (not the optimizer's state). `path`: a checkpoint, or a folder of some.

    Raises `RuntimeFault` E0510, E0511, E0513, E0521.
    """
    used = _names(_program(executable, program))
    store = {
        name: torch.empty(item.shape, dtype=DTYPES[item.dtype], device=executable.device)
        for name, item in tensors_of(executable.build).items()
        if name in used
    }
    found = path if (path / checkpoint.SCALARS).is_file() else checkpoint.latest(path)
    checkpoint.load(found, executable.build, store)
    return store


def generate(
    executable: Executable, store: Store, prompt: Sequence[int], count: int, sampling: Sampling = Sampling()
) -> Iterator[int]:
    """`count` ids that follow the prompt, one at a time. Raises `RuntimeFault` E0503, E0521, E0540, E0541 at once."""
    program = _program(executable, "predict")
    tokens, output = _ports(program)
    reason = executable.build.recipe.get("sees_ahead")
    if reason:
        raise RuntimeFault("E0541", f"{executable.build.name} sees what is still to come: {reason}", "mask = causal")
    if not prompt:
        raise RuntimeFault("E0540", "the prompt is empty", "give at least one id to go on from")
    if sampling.temperature < 0 or not math.isfinite(sampling.temperature) or sampling.top_k < 0:
        raise RuntimeFault("E0540", "temperature and top-k must not be negative")
    for position, value in enumerate(prompt):
        if value < 0 or (tokens.below is not None and value >= tokens.below):
            raise out_of_range(value, tokens.below or 1 << 63, f"the prompt, id {position}")
    return _ids(executable, store, list(prompt), count, sampling, (tokens, output))


def _ids(
    executable: Executable, store: Store, ids: list[int], count: int, sampling: Sampling, ports: tuple[Input, str]
) -> Iterator[int]:
    tokens, output = ports
    rows, length = tokens.shape
    for _ in range(count):
        window = ids[-length:]
        data = torch.zeros(rows, length, dtype=torch.int64)
        data[0, : len(window)] = torch.tensor(window)
        logits = executable.run("predict", store, [{tokens.name: data}], seed=sampling.seed)[output]
        drawn = pick(logits[0, len(window) - 1], sampling, len(ids))
        ids.append(drawn)
        yield drawn


def pick(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """An id drawn from softmax(logits [V] / temperature), cut to the `top_k` likeliest (ties: the lower id)."""
    scores, order = torch.sort(logits.detach().cpu().to(torch.float64), descending=True, stable=True)
    if not bool(torch.isfinite(scores[0])):
        raise RuntimeFault("E0520", "the model's logits are not finite", "was the checkpoint trained to its end?")
    if sampling.temperature == 0:
        return int(order[0])
    kept = min(sampling.top_k or len(scores), len(scores))
    shares = ((scores[:kept] - scores[0]) / sampling.temperature).exp_().cumsum_(0)
    keys = row_keys(key_words("generate"), sampling.seed, position, UNIFORM_STREAM, [])
    drawn = unit(row_bits(keys, torch.zeros(1, dtype=torch.int64)), torch.float64) * shares[-1]
    at = int(torch.searchsorted(shares, drawn, right=True)[0])
    return int(order[min(at, kept - 1)])


def _program(executable: Executable, name: str) -> Program:
    if name not in executable.build.programs:
        raise RuntimeFault("E0521", f"{executable.build.name} was compiled without `{name}`", "compile it again")
    return executable.build.programs[name]


def _ports(program: Program) -> tuple[Input, str]:
    """The one input of ids [rows, T] and the one output of logits [rows, T, V]."""
    tokens = [item for item in program.inputs if item.source == "data"]
    outputs = [name for name in program.outputs if name == "logits"] or list(program.outputs)
    if len(tokens) != 1 or len(tokens[0].shape) != 2 or len(outputs) != 1 or program.microbatches != 1:
        raise RuntimeFault(
            "E0521", "this model does not continue a row of ids", "generate needs ids[T] -> logits[T, V]"
        )
    return tokens[0], outputs[0]


def _names(program: Program) -> set[str]:
    """Every buffer that a program's modules read."""
    instructions = tuple(program.instructions())
    read = {name for item in instructions if isinstance(item, Run) for name in item.inputs}
    return read | set(program.outputs.values())
